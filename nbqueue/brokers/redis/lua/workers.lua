-- Supervisors: what they hold, how much more they may hold, and what they are told.
local habits_of -- defined with the functions
local workers -- id -> worker, or false when there is none
local holders -- token -> worker, made when it is first needed
local are_workers_changed
resets[#resets + 1] = function() workers, holders, are_workers_changed = fresh(workers), nil, false end

local SHORT_S = 0.2       -- a chunk that takes no longer may be fetched ahead
local FLOOR_S = 0.002     -- work below this is not worth a round trip of its own
local AHEAD_S = 0.02      -- more chunks than slots are held ahead only while they are that little work for each slot

local function worker_key(id) return P .. 'w:' .. id end
local function inbox_key(worker) return worker.key .. ':' .. worker.ear end

-- What a supervisor is, as opposed to what it does.
local info_of = remembered(function(raw)
  local flat = decode(raw)
  return {__index = {name = flat[1], slots = flat[2], prefetch = flat[3], queues = flat[4], tags = flat[5],
                     only_tagged = flat[6], is_changed = false}}
end)

-- What a report says of an item is believed as far as it makes sense.
local function is_time(seconds) return seconds == seconds and math.abs(seconds) < math.huge end
local function size_of(bytes) return type(bytes) == 'number' and bytes >= 0 and bytes < 2 ^ 53 and floor(bytes) or 0 end

-- Figures of a supervisor: finished items, chunks held, how many of them are long, seconds of work in them, when it was heard
-- of; then its ear (see `EAR`), and the digest of the function that it was sent last.
local WORKER_FORMAT = '>ddddd'
local CLAIM_FORMAT = '>dddddd' -- start, stop, attempt, since, seconds or -1, how many reports of its output were taken; then its run

local function read_claim(raw)
  if not raw then return false end
  local start, stop, attempt, since, seconds, reports, position = unpack_flat(CLAIM_FORMAT, raw)
  return {run = string.sub(raw, position), start = start, stop = stop, attempt = attempt, since = since,
          seconds = seconds >= 0 and seconds, reports = reports}
end

-- If a token is given, the claim is read as well.
local function load_worker(id, token)
  local worker = workers[id]
  if worker ~= nil then return worker end
  local key = worker_key(id)
  local found = token and call('HMGET', key, 'i', 'd', 'c' .. token) or call('HMGET', key, 'i', 'd')
  if not found[1] then
    workers[id] = false
    return false
  end
  local info, figures = info_of(found[1]), found[2]
  local done, held, long, load_s, heard_at, position = unpack_flat(WORKER_FORMAT, figures)
  worker = setmetatable({
    id = id, key = key, done = done, held = held, long = long, load_s = load_s, heard_at = heard_at,
    ear = string.sub(figures, position, position + EAR_BYTES - 1), sent = string.sub(figures, position + EAR_BYTES),
    claims = {}, messages = {}, written = {},
  }, info)
  if token then worker.claims[token] = read_claim(found[3]) end
  workers[id] = worker
  return worker
end

-- A supervisor that speaks lives. That is written with its other figures; in `workers` stands when it was last looked at.
local function hear(id, token)
  local worker = load_worker(id, token)
  if worker then worker.heard_at, worker.is_changed = now, true end
  return worker
end

local function look_at(id) call('ZADD', P .. 'workers', string.format('%.6f', now), id) end

local function tell_worker(worker, message) worker.messages[#worker.messages + 1] = message end

local function claim_of(worker, token)
  local claim = worker.claims[token]
  if claim == nil then
    claim = read_claim(call('HGET', worker.key, 'c' .. token))
    worker.claims[token] = claim
  end
  return claim
end

local function tokens_of(worker)
  local tokens = {}
  for _, field in ipairs(call('HKEYS', worker.key)) do
    if string.sub(field, 1, 1) == 'c' and worker.written[field] == nil then
      tokens[#tokens + 1] = tonumber(string.sub(field, 2))
    end
  end
  for field, claim in pairs(worker.written) do
    if claim then tokens[#tokens + 1] = tonumber(string.sub(field, 2)) end
  end
  table.sort(tokens)
  return tokens
end

local function contains(list, value)
  for _, other in ipairs(list) do
    if other == value then return true end
  end
  return false
end

-- Somebody idle first, of those who can do least else, and has most room of these.
local function suitability(worker)
  local free = worker.slots - worker.held
  return (free > 0 and 1e12 or 0) - (#worker.queues + #worker.tags) * 1e7 + free
end

-- Routes: what runs ask of a supervisor. For each that was ever asked for, it is known who serves it (core/workforce.py).
local slots_for, open_route, pick_worker, join_or_part, write_ranks, save_routes
do -- the rest is this part's own: a chunk may have 200 local names
  local CANDIDATES = 16
  local routes -- route -> {slots, ids of the few who serve it, one after the other, or false: they are many}
  local routes_before, are_routes_changed
  local leading -- of a route that many serve: the first of them
  resets[#resets + 1] = function() are_routes_changed, leading = false, fresh(leading) end

  -- Read anew only if they are not those of the last call.
  local function known_routes()
    if not are_routes_changed and (not routes or routes_before ~= stored_routes) then
      routes_before, routes = stored_routes, stored_routes and decode(stored_routes) or {}
    end
    return routes
  end

  local function change_routes()
    local known = known_routes()
    routes_before, are_routes_changed = nil, true -- if this call fails, they are read again
    return known
  end

  function save_routes()
    if not are_routes_changed then return end
    local raw = pack(routes)
    call('HSET', P .. 'g', 'routes', raw)
    routes_before = raw
  end

  -- Those who serve a route: while they are few their order does not matter, for all are looked at. When they are many they
  -- are kept in the order in which they should be taken, so that the choice costs one command.
  local function serving_key(route) return P .. 's:' .. route end

  local function serves(worker, route)
    local flat = decode(route)
    if not contains(worker.queues, flat[1]) then return false end
    if #flat[2] == 0 then return not worker.only_tagged end
    for _, tag in ipairs(flat[2]) do
      if not contains(worker.tags, tag) then return false end
    end
    return true
  end

  local function id_in(tag)
    local hex = string.match(tag, '^@(%x+)$')
    return hex and (string.gsub(hex, '%x%x', function(byte) return string.char(tonumber(byte, 16)) end))
  end

  -- The id of the one supervisor that is meant, if there is an address among the tags (core/routing.py), or false. Such a
  -- route is not kept: nobody who comes later can have that address.
  local addressee_of = remembered(function(route)
    local id = false
    for _, tag in ipairs(decode(route)[2]) do id = id_in(tag) or id end
    return id
  end)

  local function worker_at(id, route)
    local worker = load_worker(id)
    return worker and serves(worker, route) and worker or nil
  end

  function slots_for(route)
    local id = addressee_of(route)
    if id then
      local worker = worker_at(id, route)
      return worker and worker.slots or 0
    end
    local known = known_routes()[route]
    return known and known[1] or 0
  end

  local function rank(worker) return string.format('%.0f', suitability(worker)) end

  local function rank_all(key, is_ranked)
    for _, id in ipairs(call('ZRANGE', key, 0, -1)) do
      local worker = load_worker(id)
      if worker then call('ZADD', key, is_ranked and rank(worker) or 0, id) end
    end
  end

  local function serve(worker, route, known, sign)
    if not serves(worker, route) then return end
    local key = serving_key(route)
    leading[route] = nil
    known[1] = known[1] + sign * worker.slots
    if sign > 0 then
      call('ZADD', key, known[2] and 0 or rank(worker), worker.id)
    else
      call('ZREM', key, worker.id)
    end
    local are_few = call('ZCARD', key) <= CANDIDATES
    if are_few ~= (known[2] and true) then rank_all(key, not are_few) end
    known[2] = are_few and table.concat(call('ZREVRANGE', key, 0, -1))
  end

  function open_route(route)
    if known_routes()[route] or addressee_of(route) then return end
    local known = {0, ''}
    change_routes()[route] = known
    for _, id in ipairs(call('ZRANGE', P .. 'workers', 0, -1)) do
      local worker = load_worker(id)
      if worker then serve(worker, route, known, 1) end
    end
  end

  function join_or_part(worker, sign)
    for route, known in pairs(change_routes()) do serve(worker, route, known, sign) end
    G.slots = G.slots + sign * worker.slots
    are_workers_changed = true
  end

  -- After what it holds has changed.
  function write_ranks(worker)
    for route, known in pairs(known_routes()) do
      if not known[2] then call('ZADD', serving_key(route), 'XX', rank(worker), worker.id) end
    end
  end

  -- Who should be given such work; of many, the first few of the order are enough, since a call changes few of them.
  function pick_worker(route)
    local only = addressee_of(route)
    if only then return worker_at(only, route) end
    local known = known_routes()[route]
    if not known then return nil end
    local ids = known[2]
    if not ids then
      ids = leading[route] or table.concat(call('ZREVRANGE', serving_key(route), 0, CANDIDATES - 1))
      leading[route] = ids
    end
    local best, best_rank
    for i = 1, #ids, 16 do
      local worker = load_worker(string.sub(ids, i, i + 15))
      local rank = worker and suitability(worker)
      if rank and (not best or rank > best_rank) then best, best_rank = worker, rank end
    end
    return best
  end
end

local function change_load(worker, claim, sign)
  worker.held = worker.held + sign
  if not claim.seconds or claim.seconds > SHORT_S then worker.long = worker.long + sign end
  worker.load_s = worker.held == 0 and 0 or worker.load_s + sign * (claim.seconds or 0)
  worker.is_changed = true
end

local function write_claim(worker, token, claim)
  worker.written['c' .. token] = pack_flat(CLAIM_FORMAT, claim.start, claim.stop, claim.attempt, claim.since,
                                           claim.seconds or -1, claim.reports) .. claim.run
  worker.is_changed = true
end

local function add_claim(worker, token, claim)
  worker.claims[token] = claim
  write_claim(worker, token, claim)
  change_load(worker, claim, 1)
end

local function end_claim(worker, token, claim)
  worker.claims[token] = false
  worker.written['c' .. token] = false
  change_load(worker, claim, -1)
end

-- Whether a supervisor whose slots are all taken may hold one more chunk: only behind chunks that are short, too.
local function may_fetch_ahead(worker, seconds)
  local ahead = worker.held - worker.slots
  if ahead >= worker.prefetch or worker.long > 0 or not seconds or seconds > SHORT_S then return false end
  return ahead < worker.slots or worker.load_s + seconds <= AHEAD_S * worker.slots
end

stop_holder = function(token, start, stop, manner)
  if not holders then
    holders = {}
    for _, id in ipairs(call('ZRANGE', P .. 'workers', 0, -1)) do
      local worker = load_worker(id)
      if worker then
        for _, held in ipairs(tokens_of(worker)) do holders[held] = worker end
      end
    end
  end
  local worker = holders[token]
  if worker then
    local text = '\165token' .. pack(token) .. '\165start' .. pack(start) .. '\164stop' .. pack(stop)
    tell_worker(worker, '\146\164Stop' .. (manner and '\132' .. text .. '\166manner' .. manner or '\131' .. text))
  end
end

local function save_worker(worker)
  if #worker.messages > 0 then
    call('RPUSH', inbox_key(worker), array(#worker.messages) .. table.concat(worker.messages))
  end
  if not worker.is_changed then return end
  local figures = pack_flat(WORKER_FORMAT, worker.done, worker.held, worker.long, worker.load_s, worker.heard_at)
  local set, gone = {'d', figures .. worker.ear .. worker.sent}, nil
  for field, claim in pairs(worker.written) do
    if claim then
      set[#set + 1] = field
      set[#set + 1] = claim
    else
      gone = gone or {}
      gone[#gone + 1] = field
    end
  end
  if gone then call('HDEL', worker.key, unpack(gone)) end
  call('HSET', worker.key, unpack(set))
  write_ranks(worker)
end

-- How many items a claim takes, learnt from how long they run. A translation of core/chunking.py.
local NEGLIGIBLE_S = FLOOR_S / 16
local function learn(digest, items, seconds)
  local habits, observed = habits_of(digest), max(seconds, 1e-9) / items
  local seconds_before, ramp_before = habits.seconds, habits.ramp
  if not habits.seconds then
    habits.seconds = observed
  else
    local weight = items >= floor(habits.ramp / 2) and 0.4 or 0.1
    habits.seconds = habits.seconds + weight * (observed - habits.seconds)
  end
  if items >= habits.ramp then habits.ramp = items * 2 end
  -- As long as a claim is that little work, it is its ramp that bounds it, and how little it is changes nothing.
  if not seconds_before or habits.ramp ~= ramp_before or habits.ramp * max(seconds_before, habits.seconds) > NEGLIGIBLE_S then
    habits.is_changed = true
  end
end

local function claim_size(run)
  local spec = run.spec
  if spec.chunksize then return spec.chunksize end
  local habits = habits_of(spec.digest)
  if not habits.seconds then return 1 end
  local waiting = max(run.counts[PENDING], 1)
  local wanted, share = floor(SHORT_S / habits.seconds), math.ceil(waiting / max(slots_for(spec.route), 1))
  return max(1, min(wanted, habits.ramp, max(share, floor(FLOOR_S / habits.seconds)), waiting))
end
