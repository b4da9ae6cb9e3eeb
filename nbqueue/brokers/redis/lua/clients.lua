-- Clients: who follows which run, and what they are told: in a list from which the client takes entry after entry. What is too
-- large for it, and what it missed, the client reads from the log of the run, by cursor.
--
-- A connection that broke may still wait in the server for the next entry, and take it along. So each connection has a list
-- of its own: `g` holds, as n<client>, the ear of the last one, and when the client was heard of.
local INLINE_BYTES = 32768
local OUTPUT_WINDOW_BYTES = 2097152 -- of output under way to a client; P .. 'printed' counts them
local HEARD_S = 1.0 -- who was heard of so lately lives; to write that down again would change little
local NEWS_KEPT = 2000 -- entries for a client that does not take them; it notices by their cursors that some are missing
local client_notes = {} -- id -> list of notes
local output_notes = {} -- the same of what was printed
local ears = {}         -- id -> the ear of a client that was heard of within its lease, or false
resets[#resets + 1] = function()
  client_notes, output_notes, ears = fresh(client_notes), fresh(output_notes), fresh(ears)
  if CALLER ~= '' then ears[CALLER] = stored_ear end
end

-- Who has no ear yet, or is to have that of the caller, is in `clients` from now on.
local function give_ear(id, ear)
  local stored = ear .. pack_flat('>d', now)
  ears[id] = stored
  call('HSET', P .. 'g', 'n' .. id, stored)
  call('ZADD', P .. 'clients', string.format('%.6f', now), id)
end

local function ear_of(id)
  local ear = ears[id]
  if ear == nil then
    ear = call('HGET', P .. 'g', 'n' .. id)
    ears[id] = ear
  end
  return ear
end

local function hear_client(id)
  local ear = ear_of(id)
  local heard_at = ear and unpack_flat('>d', ear, EAR_BYTES + 1)
  if ear and heard_at <= now and now < heard_at + HEARD_S then return true end
  give_ear(id, ear and string.sub(ear, 1, EAR_BYTES) or EAR)
  return ear ~= false
end

local function news_key(id) return P .. 'n:' .. id .. string.sub(ear_of(id), 1, EAR_BYTES) end

local function tell_client(id, ...)
  local key = news_key(id)
  if call('RPUSH', key, ...) > NEWS_KEPT then call('LTRIM', key, -NEWS_KEPT, -1) end
end

local function followers_of(run)
  local found = {}
  for i = 1, #run.d.followers, 16 do
    local id = string.sub(run.d.followers, i, i + 15)
    if ear_of(id) then found[#found + 1] = id end
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
  end
  if is_waiting(run) and run.d.is_ready == 0 then newly_ready[#newly_ready + 1] = run end
end

local ONE_DONE, counts_of, news_of, news, notify, notify_of_output, save_notes
do -- the rest is this part's own: a chunk may have 200 local names
  ONE_DONE = '\134\165total\1\166closed\195\164done\1\166failed\0\167revoked\0\167running\0'
  function counts_of(run)
    local c = run.counts
    if run.d.total == 1 and run.d.closed == 1 and c[SUCCESS] == 1 then return ONE_DONE end -- what is told most often
    return '\134\165total' .. int(run.d.total) .. '\166closed' .. bool(run.d.closed == 1) .. '\164done' .. int(c[SUCCESS])
      .. '\166failed' .. int(c[FAILURE] + c[LOST] + c[EXPIRED]) .. '\167revoked' .. int(c[REVOKED])
      .. '\167running' .. int(c[RECEIVED] + c[STARTED])
  end

  -- News of a run: id, cursor, entries, counts, finished, work_s, length of the log, queue, tags, remarks, events of output. The
  -- client's end makes a note of it; who may run it, it works out itself from what it knows of the supervisors.
  function news_of(spec, id, cursor, entries, counts, finished, work_s, length, remarks, output_end)
    return '\155' .. bin(id) .. int(cursor) .. array(#entries) .. (#entries == 1 and entries[1] or table.concat(entries)) .. counts
      .. bool(finished) .. pack_flat('>Bd', 203, work_s) .. int(length) .. spec.place .. remarks .. int(output_end)
  end

  function news(run, cursor, entries)
    local d = run.d
    return news_of(run.spec, run.id, cursor, entries, counts_of(run), is_finished(run), d.work_s, d.log_length,
                   d.remarks and pack(d.remarks) or '\144', d.output_end)
  end

  function notify(run)
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
  function notify_of_output(run)
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

  -- Entries for a client: n news | e what was printed | a an answer | w workers came or went
  function save_notes()
    for id, notes in pairs(output_notes) do tell_client(id, 'e' .. array(#notes) .. table.concat(notes)) end
    for id, notes in pairs(client_notes) do tell_client(id, 'n' .. array(#notes) .. table.concat(notes)) end
    if are_workers_changed then -- whoever waits wants to know
      for _, id in ipairs(call('ZRANGE', P .. 'clients', 0, -1)) do
        if ear_of(id) then tell_client(id, 'w') end
      end
    end
  end
end

local function children_key(id) return P .. 'c:' .. id end -- runs that were submitted inside a run -> item

local function forget_client(id)
  if ear_of(id) then call('UNLINK', news_key(id)) end
  call('HDEL', P .. 'g', 'n' .. id)
  call('ZREM', P .. 'clients', id)
  call('HDEL', P .. 'printed', id)
  ears[id] = false
end

local function forget_run(run)
  local digest = run.spec.digest
  if run.d.is_ready == 1 then leave_line(run) end
  G.items = G.items - run.items_before
  G.bytes = G.bytes - run.bytes_before
  drop_key(run.key)
  if run.d.listed == 1 then drop_key(log_key(run)) end
  if run.d.queued > 0 then drop_key(queue_key(run)) end
  if run.d.blocks > 1 then drop_key(block_index(run)) end
  if run.d.output_end > 0 then forget_output(run) end
  if run.d.parent then call('HDEL', children_key(run.d.parent), run.id) end
  forget_end(run.id)
  runs[run.id] = false
  leave_function(digest)
end
