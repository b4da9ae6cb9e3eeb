-- Runs: loaded when they are first touched, changed in memory, written back once at the end of the script.
local runs      -- id -> run, or false when there is none
local run_order -- ids in the order in which they were first touched
resets[#resets + 1] = function() runs, run_order = fresh(runs), fresh(run_order) end

-- Figures of a run, and how they begin.
local FIGURES = {__index = {
  total = 0, closed = 0, is_revoked = 0, log_length = 0, work_s = 0, payload_bytes = 0, result_bytes = 0, finished_at = 0,
  is_ready = 0, head_start = 0, head_stop = 0, queued = 0, ended = 0, followers = '', blocks = 0, page = false, remarks = false,
  output_end = 0, output_bytes = 0, submitted_at = 0, parent = false, depth = 0, listed = 0,
}}
local COUNTS = {__index = {}} -- items by state
for state = SCHEDULED, EXPIRED do COUNTS.__index[state] = 0 end

local SINGLE_FORMAT, encode_figures, decode_figures
do -- the rest is this part's own: a chunk may have 200 local names
  -- Stored are those that are not as they begin. What most runs are, closed with one item and nothing special, is a row of figures,
  -- whose first is less than 128, as that of a table is not: is_ready, head_stop, ended, listed, is_revoked; the record; work_s,
  -- payload_bytes, result_bytes, finished_at, submitted_at; then the followers.
  SINGLE_FORMAT = '>BBBBBBI4I4I4I4I6BddI5I5dd'
  local SINGLE = {__index = {}}
  firsts[#firsts + 1] = function()
    for name, value in pairs(FIGURES.__index) do SINGLE.__index[name] = value end
    SINGLE.__index.total, SINGLE.__index.closed, SINGLE.__index.blocks = 1, 1, 1
  end
  local NOTHING = {PENDING, 0, 0, 0, 0, 0, 0, 0}

  function encode_figures(run)
    local d = run.d
    if d.total == 1 and d.closed == 1 and d.output_end == 0 and d.depth == 0 and not (d.parent or d.remarks) and d.queued == 0 then
      local record = d.page and d.page[1][2] or NOTHING
      return pack_flat(SINGLE_FORMAT, d.is_ready, d.head_stop, d.ended, d.listed, d.is_revoked, next(run.counts), record[ATTEMPT],
                       record[DELIVERIES], record[DEATHS], record[RETRIES], record[TOKEN], record[REVOKING], record[DUE],
                       d.work_s, d.payload_bytes, d.result_bytes, d.finished_at, d.submitted_at) .. d.followers
    end
    d.total, d.closed, d.blocks = d.total, d.closed, d.blocks
    return pack(d)
  end

  function decode_figures(raw)
    if string.byte(raw) >= 128 then return setmetatable(decode(raw), FIGURES) end
    local is_ready, head_stop, ended, listed, is_revoked, state, attempt, deliveries, deaths, retries, token, revoking, due,
      work_s, payload_bytes, result_bytes, finished_at, submitted_at, position = unpack_flat(SINGLE_FORMAT, raw)
    return setmetatable({
      is_ready = is_ready, head_stop = head_stop, ended = ended, log_length = ended, listed = listed, is_revoked = is_revoked,
      page = {{PAGE_ITEMS, {state, attempt, deliveries, deaths, retries, token, revoking, due}}}, counts = {[state] = 1},
      work_s = work_s, payload_bytes = payload_bytes, result_bytes = result_bytes, finished_at = finished_at,
      submitted_at = submitted_at, followers = string.sub(raw, position),
    }, SINGLE)
  end
end

local function bytes_of(d) return d.payload_bytes + d.result_bytes + d.output_bytes end

-- What was asked for: digest, label, environment, owner, options.
local spec_of = remembered(function(asked)
  local flat = decode(asked)
  local options = flat[5]
  return {
    digest = flat[1], label = flat[2], environment = flat[3], owner = flat[4],
    max_retries = options[1], backoff_s = options[2], backoff_max_s = options[3], jitter = options[4],
    max_lost = options[5], strict_fence = options[6], priority = options[7], countdown_s = options[8],
    expires_s = options[9], chunksize = options[10], result_expires_s = options[11], queue = options[12],
    tags = options[13], limits = options[14], route = pack({options[12], options[13]}),
    lane = pack({options[7], options[12], options[13]}), place = pack(options[12], options[13]),
    packed_label = pack(flat[2]), packed_digest = bin(flat[1]), packed_environment = bin(flat[3]),
    packed_priority = pack(options[7]),
  }
end)

local function new_run(id, d, asked)
  local run = {id = id, key = P .. 'r:' .. id, d = d, counts = setmetatable(d.counts, COUNTS), asked = asked,
               spec = spec_of(asked), pages = {}, dirty_pages = {}, new_blocks = {}, log = {}, log_before = d.log_length}
  run.items_before = d.total - d.ended
  run.bytes_before = bytes_of(d)
  runs[id] = run
  run_order[#run_order + 1] = id
  return run
end

local function load_run(id)
  local run = runs[id]
  if run ~= nil then return run end
  local found = call('HMGET', P .. 'r:' .. id, 'm', 's')
  if not found[1] then
    runs[id] = false
    return false
  end
  return new_run(id, decode_figures(found[1]), found[2])
end

local function is_finished(run) return run.d.closed == 1 and run.d.ended == run.d.total end
local function is_waiting(run) return run.counts[PENDING] > 0 end
local function is_with_workers(run) return run.counts[RECEIVED] > 0 or run.counts[STARTED] > 0 end

local function account(run)
  local items, bytes = run.d.total - run.d.ended, bytes_of(run.d)
  G.items = G.items + items - run.items_before
  G.bytes = G.bytes + bytes - run.bytes_before
  run.items_before, run.bytes_before = items, bytes
end

local block_index, blocks_of, add_block, payload_of, free_blocks
do -- the rest is this part's own: a chunk may have 200 local names
  -- Payload blocks. The only one of a short run is all that it has; several have an index, whose members say "start stop bytes",
  -- and counts of the items that have not ended.
  function block_index(run) return P .. 'k:' .. run.id end

  function blocks_of(run, start, stop)
    local d = run.d
    if d.blocks <= 1 then return {{0, d.total, d.payload_bytes}} end
    local members = call('ZREVRANGEBYSCORE', block_index(run), start, 0, 'LIMIT', 0, 1)
    for _, member in ipairs(call('ZRANGEBYSCORE', block_index(run), '(' .. start, '(' .. stop)) do
      members[#members + 1] = member
    end
    local found = {}
    for i, member in ipairs(members) do
      local first, last, bytes = string.match(member, '(%d+) (%d+) (%d+)')
      found[i] = {tonumber(first), tonumber(last), tonumber(bytes)}
    end
    return found
  end

  local function index_block(run, start, stop, bytes, open)
    call('ZADD', block_index(run), start, start .. ' ' .. stop .. ' ' .. bytes)
    call('HSET', run.key, 'o' .. start, open)
  end

  function add_block(run, start, stop, payload)
    local d = run.d
    run.new_blocks[#run.new_blocks + 1] = 'b' .. start
    run.new_blocks[#run.new_blocks + 1] = payload
    if d.blocks > 0 then
      if d.blocks == 1 then index_block(run, 0, d.total, d.payload_bytes, d.total - d.ended) end
      index_block(run, start, stop, #payload, stop - start)
    end
    d.blocks = d.blocks + 1
    d.payload_bytes = d.payload_bytes + #payload
  end

  -- The payload of a block, which may not be in the store yet.
  function payload_of(run, first)
    for i = 1, #run.new_blocks, 2 do
      if run.new_blocks[i] == 'b' .. first then return run.new_blocks[i + 1] end
    end
    return call('HGET', run.key, 'b' .. first) or ''
  end

  local function delete_block(run, first)
    for i = 1, #run.new_blocks, 2 do
      if run.new_blocks[i] == 'b' .. first then
        run.new_blocks[i + 1] = ''
        return
      end
    end
    call('HDEL', run.key, 'b' .. first)
  end

  -- Of the only block an empty one is left: that is written together with the rest.
  local function empty_block(run)
    run.new_blocks[1], run.new_blocks[2] = 'b0', ''
  end

  function free_blocks(run, start, stop)
    local d = run.d
    if d.blocks == 1 then
      if d.ended == d.total then
        d.payload_bytes = 0
        empty_block(run)
      end
      return
    end
    for _, block in ipairs(blocks_of(run, start, stop)) do
      local ended = min(stop, block[2]) - max(start, block[1])
      if call('HINCRBY', run.key, 'o' .. block[1], -ended) == 0 then
        d.payload_bytes = d.payload_bytes - block[3]
        delete_block(run, block[1])
        call('HDEL', run.key, 'o' .. block[1])
      end
    end
  end
end

local function entry(start, stop, state, payload, offset, reason, attempt, worker_name, wall_s, cpu_s, peak_bytes)
  return '\155' .. int(start) .. int(stop) .. int(state) .. bin(payload) .. int(offset) .. str(reason) .. int(attempt)
    .. str(worker_name) .. pack_flat('>BdBd', 203, wall_s, 203, cpu_s) .. int(peak_bytes)
end

-- The only place where the end of items is written into the log, but for lone tasks (lone.lua).
local function finish(run, start, stop, record, state, ending)
  local d = run.d
  local share = (stop - start) / max(ending.count or 1, 1)
  local has_payload = state == SUCCESS or state == FAILURE
  local payload = has_payload and ending.payload or ''
  local wall_s = (ending.wall_s or 0) * share
  run.log[#run.log + 1] = entry(start, stop, state, payload, has_payload and start - (ending.first or 0) or 0,
                                state ~= SUCCESS and ending.reason or '', record[ATTEMPT], ending.worker or '', wall_s,
                                (ending.cpu_s or 0) * share, ending.peak_bytes or 0)
  d.log_length = d.log_length + 1
  d.ended = d.ended + stop - start
  d.work_s = d.work_s + wall_s
  d.result_bytes = d.result_bytes + #payload
  free_blocks(run, start, stop)
end

-- When something is due: an item's countdown or backoff ends, or its time to start has passed.
local function add_wake(due, run, start, stop, trigger)
  G.order = G.order + 1
  if G.due == 0 or due < G.due then G.due = due end
  call('ZADD', P .. 'due', string.format('%.6f', due),
       string.format('%016.0f', G.order) .. string.sub(trigger, 1, 1) .. run.id .. start .. ' ' .. stop)
end

local stop_holder -- defined with the workers

local function count(run, state, items)
  local sum = run.counts[state] + items
  run.counts[state] = sum ~= 0 and sum or nil
end

-- Let an event happen to items; where it is not legal it is counted and ignored.
local function apply(run, event, start, stop, ending)
  if is_finished(run) then
    refused_events = refused_events + 1
    return
  end
  local rules, requeued = run.spec, {}
  for _, segment in ipairs(segments(run, start, stop)) do
    local first, last, old = segment[1], segment[2], segment[3]
    local new, commands = step(old, event, rules)
    if new ~= old then
      set_items(run, first, last, new)
      count(run, old[STATE], first - last)
      count(run, new[STATE], last - first)
    end
    if commands == 'F' then
      finish(run, first, last, old, new[STATE], ending or {})
    elseif commands ~= '' then
      for command in string.gmatch(commands, '.') do
        if command == 'F' then finish(run, first, last, old, new[STATE], ending or {})
        elseif command == 'B' then push_back(run, first, last)
        elseif command == 'Q' then requeued[#requeued + 1] = segment
        elseif command == 'W' then add_wake(new[DUE], run, first, last, 'due')
        elseif command == 'S' then stop_holder(old[TOKEN], first, last, event.manner)
        else refused_events = refused_events + 1 end
      end
    end
  end
  for i = #requeued, 1, -1 do push_front(run, requeued[i][1], requeued[i][2]) end
end

local NEVER = {reason = 'not started in time'}

local add_expiry, expires_in
do -- the rest is this part's own: a chunk may have 200 local names
  -- When items may no longer start: {stop, time, ...}, kept only for runs that expire.
  local function expiries_of(run)
    if not run.expiries then run.expiries = decode(call('HGET', run.key, 'x') or '\144') end
    return run.expiries
  end

  function add_expiry(run, stop, at)
    local expiries = expiries_of(run)
    if expiries[#expiries] == at then
      expiries[#expiries - 1] = stop
    else
      expiries[#expiries + 1] = stop
      expiries[#expiries + 1] = at
    end
    call('HSET', run.key, 'x', pack(expiries))
  end

  -- Whether items, which have never run, are past their time to start; they end then.
  function expires_in(run, start, stop)
    if not run.spec.expires_s then return false end
    local expiries = expiries_of(run)
    for i = 1, #expiries, 2 do
      if start < expiries[i] then
        if now < expiries[i + 1] then return false end
        local last = min(stop, expiries[i])
        apply(run, {trigger = 'expire'}, start, last, NEVER)
        if last < stop then push_front(run, last, stop) end
        return true
      end
    end
    return false
  end
end

-- Take up to size waiting items of equal standing from the head of the queue: first, last, attempt.
local function claim_items(run, size, token)
  local d = run.d
  while d.head_start < d.head_stop do
    local segment = segments(run, d.head_start, min(d.head_stop, d.head_start + size))[1]
    local start, stop, record = segment[1], segment[2], segment[3]
    drop_from_queue(run, stop - start)
    if record[STATE] == PENDING and (has_run(record) or not expires_in(run, start, stop)) then
      apply(run, {trigger = 'claim', token = token}, start, stop, {reason = 'claimed too often'})
      local claimed = segments(run, start, start + 1)[1][3]
      if claimed[STATE] == RECEIVED then return start, stop, claimed[ATTEMPT] end
    end
  end
  return nil
end

-- The log is a list; the only entry that a run of one item has lies with the run.
local function log_key(run) return P .. 'l:' .. run.id end

local function write_log(run)
  local log = run.log
  if run.d.total == 1 and run.d.closed == 1 and run.d.listed == 0 then
    local fields = run.new_blocks
    fields[#fields + 1] = 'e'
    fields[#fields + 1] = log[1]
    return
  end
  run.d.listed = 1
  for first = 1, #log, 500 do call('RPUSH', log_key(run), unpack(log, first, min(first + 499, #log))) end
end

local function read_log(run, start, stop)
  if run.d.listed == 1 then return call('LRANGE', log_key(run), start, stop - 1) end
  return {call('HGET', run.key, 'e')}
end

local function save_run(run)
  local d, done = run.d, is_finished(run)
  if #run.log > 0 then write_log(run) end
  if done then
    -- Nothing can change any more: what served changes goes. Which items were revoked is still asked for by their children.
    if run.counts[REVOKED] == 0 and d.total > PAGE_ITEMS then
      for first = 1, floor((d.total - 1) / PAGE_ITEMS), 500 do
        local names = {}
        for k = first, min(first + 499, floor((d.total - 1) / PAGE_ITEMS)) do names[#names + 1] = 'p' .. k end
        call('HDEL', run.key, unpack(names))
      end
    end
    if d.queued > 0 then call('UNLINK', queue_key(run)) end
    if d.blocks > 1 then call('UNLINK', block_index(run)) end
    d.queued, d.head_start, d.head_stop = 0, 0, 0
  end
  if done and run.counts[REVOKED] == 0 then
    d.page = nil
  else
    for k in pairs(run.dirty_pages) do
      if k == 0 then d.page = run.pages[0] else call('HSET', run.key, 'p' .. k, pack(run.pages[k])) end
    end
  end
  local fields = run.new_blocks
  run.new_blocks = {}
  fields[#fields + 1] = 'm'
  fields[#fields + 1] = encode_figures(run)
  if run.is_new then
    fields[#fields + 1] = 's'
    fields[#fields + 1] = run.asked
    run.is_new = nil
  end
  if #fields <= 500 then return call('HSET', run.key, unpack(fields)) end
  for first = 1, #fields, 500 do call('HSET', run.key, unpack(fields, first, min(first + 499, #fields))) end
end
