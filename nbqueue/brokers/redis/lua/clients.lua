-- Clients: who follows which run, and what they are told. A client reads its stream from the last entry that it has seen;
-- what is too large for it, and what it missed, it reads from the log of the run, by cursor.
local INLINE_BYTES = 32768
local OUTPUT_WINDOW_BYTES = 2097152 -- of output under way to a client; P .. 'printed' counts them
local STREAM_ENTRIES = 2000
local STREAM_TTL_MS = 3600000
local client_notes -- id -> list of notes
local output_notes -- the same of what was printed
local alive        -- id -> whether it was heard of within its lease
resets[#resets + 1] = function() client_notes, output_notes, alive = {}, {}, {} end

local function stream_key(id) return P .. 'n:' .. id end

local function hear_client(id)
  if alive[id] then return true end
  local are_new = call('ZADD', P .. 'clients', string.format('%.6f', now), id)
  alive[id] = true
  return are_new == 0
end

local function is_alive(id)
  if alive[id] == nil then alive[id] = call('ZSCORE', P .. 'clients', id) and true or false end
  return alive[id]
end

local function followers_of(run)
  local found = {}
  for i = 1, #run.d.followers, 16 do
    local id = string.sub(run.d.followers, i, i + 15)
    if is_alive(id) then found[#found + 1] = id end
  end
  return found
end

local function follow(run, id)
  for i = 1, #run.d.followers, 16 do
    if string.sub(run.d.followers, i, i + 15) == id then return end
  end
  run.d.followers = run.d.followers .. id
  run.is_touched = true
end

local function unfollow(run, id)
  local kept = {}
  for i = 1, #run.d.followers, 16 do
    local other = string.sub(run.d.followers, i, i + 15)
    if other ~= id then kept[#kept + 1] = other end
  end
  run.d.followers = table.concat(kept)
  run.is_touched = true
end

mark_dirty = function(run)
  run.is_dirty = true
  run.is_touched = true
end

-- Bring everything that depends on the run up to date; it is news unless told otherwise.
changed = function(run, is_silent)
  run.is_touched = true
  if not is_silent then run.is_dirty = true end
  account(run)
  if is_finished(run) and run.d.finished_at == 0 then
    run.d.finished_at = max(now, 1e-6)
    local spec = spec_of(run)
    add_to_index('ends', run.id .. spec.digest, spec.result_expires_s)
  end
  if is_waiting(run) and run.d.is_ready == 0 then newly_ready[#newly_ready + 1] = run end
end

local ONE_DONE = '\134\165total\1\166closed\195\164done\1\166failed\0\167revoked\0\167running\0'
local function counts_of(run)
  local c = run.counts
  if run.d.total == 1 and run.d.closed == 1 and c[SUCCESS] == 1 then return ONE_DONE end -- what is told most often
  return '\134\165total' .. pack(run.d.total) .. '\166closed' .. bool(run.d.closed == 1) .. '\164done' .. pack(c[SUCCESS])
    .. '\166failed' .. pack(c[FAILURE] + c[LOST] + c[EXPIRED]) .. '\167revoked' .. pack(c[REVOKED])
    .. '\167running' .. pack(c[RECEIVED] + c[STARTED])
end

-- News of a run: id, cursor, entries, counts, finished, work_s, length of the log, queue, tags, remarks, events of output. The
-- client's end makes a note of it; who may run it, it works out itself from what it knows of the supervisors.
local function news(run, cursor, entries)
  local spec = spec_of(run)
  return '\155' .. bin(run.id) .. pack(cursor) .. array(#entries) .. table.concat(entries) .. counts_of(run)
    .. bool(is_finished(run)) .. pack(run.d.work_s, run.d.log_length) .. spec.place
    .. (run.d.remarks and pack(run.d.remarks) or '\144') .. pack(run.d.output_end)
end

local function notify(run)
  local followers = followers_of(run)
  if #followers == 0 then return end
  local entries, size = run.log, 0
  for _, entry in ipairs(entries) do size = size + #entry end
  if size > INLINE_BYTES then entries = {} end
  local text = news(run, run.log_before, entries)
  for _, id in ipairs(followers) do
    local notes = client_notes[id] or {}
    notes[#notes + 1] = text
    client_notes[id] = notes
  end
end

-- What was printed comes before the news of the same call, so that whoever hears of an end has heard it all. A client that does
-- not take what it is told is told only that there is more, and reads it when it can.
local function notify_of_output(run)
  local upto, size = run.d.output_end, run.printed_bytes
  local whole, only_that = output_note(run, run.printed_from, run.printed, upto), output_note(run, upto, {}, upto)
  for _, id in ipairs(followers_of(run)) do
    local notes = output_notes[id] or {}
    if call('HINCRBY', P .. 'printed', id, size) - size < OUTPUT_WINDOW_BYTES then
      notes[#notes + 1] = whole
    else
      call('HINCRBY', P .. 'printed', id, -size)
      notes[#notes + 1] = only_that
    end
    output_notes[id] = notes
  end
end

local function save_notes()
  for id, notes in pairs(output_notes) do
    call('XADD', stream_key(id), 'MAXLEN', '~', STREAM_ENTRIES, '*', 'e', array(#notes) .. table.concat(notes))
  end
  for id, notes in pairs(client_notes) do
    call('XADD', stream_key(id), 'MAXLEN', '~', STREAM_ENTRIES, '*', 'n', array(#notes) .. table.concat(notes))
  end
  if are_workers_changed then -- whoever waits wants to know that workers came or went
    for _, id in ipairs(call('ZRANGE', P .. 'clients', 0, -1)) do
      call('XADD', stream_key(id), 'MAXLEN', '~', STREAM_ENTRIES, '*', 'w', '')
    end
  end
end

local function children_key(id) return P .. 'c:' .. id end -- runs that were submitted inside a run -> item

local function forget_client(id)
  call('ZREM', P .. 'clients', id)
  call('HDEL', P .. 'printed', id)
  call('DEL', stream_key(id))
end

local function forget_run(run)
  local digest = spec_of(run).digest
  if run.d.is_ready == 1 then leave_line(run) end
  G.items = G.items - run.items_before
  G.bytes = G.bytes - run.bytes_before
  drop_key(run.key)
  if run.d.log_length > 0 then drop_key(P .. 'l:' .. run.id) end
  if run.d.queued > 0 then drop_key(queue_key(run)) end
  if run.d.blocks > 1 then drop_key(block_index(run)) end
  if run.d.output_end > 0 then forget_output(run) end
  if run.d.parent then call('HDEL', children_key(run.d.parent), run.id) end
  drop_from_index('runs', run.id)
  drop_from_index('ends', run.id .. digest)
  runs[run.id] = false
  leave_function(digest)
end
