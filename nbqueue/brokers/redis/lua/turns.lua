-- Who is served next: highest priority first, clients in turn, each client's oldest run first, among those that somebody
-- with room may run (ADR 0005; core/ready.py). A lane holds the runs that are of equal standing for every supervisor.
local mark_dirty, changed -- defined with the clients
local newly_ready -- runs of which items have begun to wait in this call: handed out at once where nothing else waits
resets[#resets + 1] = function() newly_ready = fresh(newly_ready) end
local leave_line, assign, stand_in_line, delivery_of
do -- the rest is this part's own: a chunk may have 200 local names
  local function owners_key(lane) return P .. 'o:' .. lane end
  local function line_key(lane, owner) return P .. 'o:' .. lane .. owner end

  -- Lanes are named by what they hold: priority and route.
  local in_lane = remembered(function(lane)
    local flat = decode(lane)
    return {priority = flat[1], route = pack({flat[2], flat[3]})}
  end)

  local NO_LANES = {}
  local lanes -- those in which somebody stands, highest priority first; nil: not read yet
  resets[#resets + 1] = function() lanes = nil end

  local function lanes_in_order()
    if G.lanes == 0 then return NO_LANES end
    if not lanes then lanes = call('ZREVRANGE', P .. 'lanes', 0, -1) end
    return lanes
  end

  local function next_number()
    G.order = G.order + 1
    return string.format('%.0f', G.order)
  end

  local function make_ready(run)
    local spec = run.spec
    local lane = spec.lane
    run.d.is_ready = 1
    if call('RPUSH', line_key(lane, spec.owner), next_number() .. ' ' .. run.id) == 1 then
      local turn = call('HGET', P .. 'turns', spec.owner)
      if not turn then
        turn = next_number()
        call('HSET', P .. 'turns', spec.owner, turn)
      end
      if call('ZADD', owners_key(lane), turn, spec.owner) == 1 and call('ZADD', P .. 'lanes', spec.priority, lane) == 1 then
        G.lanes, lanes = G.lanes + 1, nil
      end
    end
  end

  local function close_line(lane, owner)
    call('ZREM', owners_key(lane), owner)
    if call('EXISTS', owners_key(lane)) == 0 then
      G.lanes, lanes = G.lanes - call('ZREM', P .. 'lanes', lane), nil
    end
    for _, other in ipairs(lanes_in_order()) do
      if call('ZSCORE', owners_key(other), owner) then return end
    end
    call('HDEL', P .. 'turns', owner)
  end

  -- Whether somebody who serves the route could hold one more chunk, whatever it is.
  local function is_anybody_open(route)
    local worker = pick_worker(route)
    return worker and worker.held - worker.slots < worker.prefetch
  end

  function delivery_of(spec, token, id, start, stop, attempt, body, blocks, depth)
    return '\146\167Deliver\157' .. int(token) .. bin(id) .. spec.packed_label .. int(start) .. int(stop) .. int(attempt)
      .. spec.packed_digest .. body .. blocks .. spec.packed_environment .. spec.limits .. int(depth) .. spec.packed_priority
  end

  local function delivery(run, worker, token, start, stop, attempt)
    local spec = run.spec
    local body = '\192'
    if worker.sent ~= spec.digest then
      if call('SADD', worker.key .. ':f', spec.digest) == 1 then body = bin(call('HGET', P .. 'functions', spec.digest) or '') end
      worker.sent = spec.digest
    end
    local blocks = {}
    for i, block in ipairs(blocks_of(run, start, stop)) do
      blocks[i] = '\147' .. int(block[1]) .. int(block[2]) .. bin(payload_of(run, block[1]))
    end
    return delivery_of(spec, token, run.id, start, stop, attempt, body, array(#blocks) .. table.concat(blocks), run.d.depth)
  end

  -- Give the worker a chunk of the run; false when nothing of it waits.
  local function give(run, worker, size)
    local token, ends = G.token + 1, #run.log
    G.token = token
    local start, stop, attempt = claim_items(run, size, token)
    if #run.log > ends then changed(run) end -- items that were claimed too often, or have expired, end at their claim
    if not start then return false end
    local spec = run.spec
    local each = habits_of(spec.digest).seconds
    add_claim(worker, token, {run = run.id, start = start, stop = stop, attempt = attempt, since = now,
                              seconds = each and each * (stop - start), reports = 0})
    tell_worker(worker, delivery(run, worker, token, start, stop, attempt))
    run.is_touched = true
    return true
  end

  local function has_room(worker, run, size)
    if worker.held < worker.slots then return true end
    local each = habits_of(run.spec.digest).seconds
    return may_fetch_ahead(worker, each and each * size)
  end

  local function hand_out(run, passed_over)
    local route = run.spec.route
    while is_waiting(run) do
      local worker, size = pick_worker(route), claim_size(run)
      if not worker or not has_room(worker, run, size) then
        passed_over[route] = true
        return
      end
      if not give(run, worker, size) then return end
    end
  end

  -- A line that is alone needs no turns: its runs are served one after the other.
  local MOST_READ = 64
  local function serve_line(lane, owner, passed_over)
    local key, route = line_key(lane, owner), in_lane(lane).route
    while true do
      local worker = pick_worker(route)
      local room = worker and worker.slots + worker.prefetch - worker.held or 0
      if room <= 0 then return end
      local wanted = min(room, MOST_READ)
      local entries, served = call('LRANGE', key, 0, wanted - 1), 0
      for _, entry in ipairs(entries) do
        local run = load_run(string.sub(entry, -16))
        if run then
          hand_out(run, passed_over)
          if is_waiting(run) and passed_over[run.spec.route] then break end
          run.d.is_ready, run.is_touched = 0, true
        end
        served = served + 1
      end
      if served > 0 then call('LTRIM', key, served, -1) end
      if served < #entries then return end
      if #entries < wanted then return close_line(lane, owner) end
    end
  end

  -- The run whose turn it is, of those whose route is not passed over.
  local head_of_turns
  head_of_turns = function(passed_over)
    local best
    local all = lanes_in_order()
    for _, lane in ipairs(all) do
      local priority, route = in_lane(lane).priority, in_lane(lane).route
      if best and priority < best.priority then break end
      if not passed_over[route] and not is_anybody_open(route) then passed_over[route] = true end
      if not passed_over[route] then
        local first = call('ZRANGE', owners_key(lane), 0, 1, 'WITHSCORES')
        local turn, entry = tonumber(first[2]), call('LINDEX', line_key(lane, first[1]), 0)
        if not entry then
          close_line(lane, first[1])
          return head_of_turns(passed_over)
        end
        local space = string.find(entry, ' ', 1, true)
        local number = tonumber(string.sub(entry, 1, space - 1))
        if not best or turn < best.turn or (turn == best.turn and number < best.number) then
          best = {priority = priority, lane = lane, owner = first[1], turn = turn, number = number, entry = entry,
                  id = string.sub(entry, space + 1), is_alone = #all == 1 and #first == 2}
        end
      end
    end
    if best then best.lanes = all end
    return best
  end

  -- The owner was served: all others come before it does again.
  local function end_turn(head)
    if head.is_alone then return end
    local turn = next_number()
    call('HSET', P .. 'turns', head.owner, turn)
    for _, lane in ipairs(head.lanes) do call('ZADD', owners_key(lane), 'XX', turn, head.owner) end
  end

  -- The run is forgotten while its place in the line, which it did not use, is still there.
  function leave_line(run)
    local lane, owner = run.spec.lane, run.spec.owner
    for _, entry in ipairs(call('LRANGE', line_key(lane, owner), 0, -1)) do
      if string.sub(entry, -16) == run.id then call('LREM', line_key(lane, owner), 1, entry) end
    end
  end

  -- Without a place in a line, if nobody stands in one and those who come are of one kind: then there are no turns to take.
  local function hand_out_at_once()
    local first = newly_ready[1]
    if not first or not load_run(first.id) or #lanes_in_order() > 0 then return end
    local lane, owner, passed_over = first.spec.lane, first.spec.owner, {}
    for _, run in ipairs(newly_ready) do
      if run.spec.lane ~= lane or run.spec.owner ~= owner then return end
    end
    for _, run in ipairs(newly_ready) do
      if passed_over[run.spec.route] then return end
      if runs[run.id] == run then hand_out(run, passed_over) end
    end
  end

  function stand_in_line()
    for _, run in ipairs(newly_ready) do
      if runs[run.id] == run and is_waiting(run) and run.d.is_ready == 0 then make_ready(run) end
    end
    newly_ready = fresh(newly_ready)
  end

  -- Give waiting items to slots; a route without room does not stop the others.
  function assign()
    if G.slots > 0 then hand_out_at_once() end
    stand_in_line()
    if G.slots == 0 or G.lanes == 0 then return end
    local passed_over = {}
    while true do
      local head = head_of_turns(passed_over)
      if not head then return end
      if head.is_alone then return serve_line(head.lane, head.owner, passed_over) end
      local run, is_given = load_run(head.id), false
      if run and is_waiting(run) then
        local route = run.spec.route
        local worker, size = pick_worker(route), claim_size(run)
        if worker and has_room(worker, run, size) then
          is_given = give(run, worker, size)
        else
          passed_over[route] = true
        end
      end
      if is_given then end_turn(head) end
      if not run or not is_waiting(run) or (not is_given and not passed_over[run.spec.route]) then
        call('LPOP', line_key(head.lane, head.owner)) -- it was the first
        if run then run.d.is_ready, run.is_touched = 0, true end
      end
    end
  end
end
