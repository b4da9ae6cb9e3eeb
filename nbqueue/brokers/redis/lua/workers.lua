-- Supervisors: what they hold, how much more they may hold, and what they are told.
local workers -- id -> worker, or false when there is none
local holders -- token -> worker, made when it is first needed
local route_slots, serving, addressees
local are_workers_changed
local sizers
resets[#resets + 1] = function()
  workers, holders, route_slots, serving, addressees, are_workers_changed, sizers = {}, nil, {}, {}, {}, false, {}
end

local SHORT_S = 0.2       -- a chunk that takes no longer may be fetched ahead
local FLOOR_S = 0.002     -- work below this is not worth a round trip of its own
local AHEAD_S = 0.02      -- more chunks than slots are held ahead only while they are that little work for each slot
local INBOX_TTL_MS = 3600000

local function worker_key(id) return P .. 'w:' .. id end
local function inbox_key(id) return P .. 'w:' .. id .. ':in' end

local function load_worker(id)
  local worker = workers[id]
  if worker ~= nil then return worker end
  local found = call('HMGET', worker_key(id), 'i', 'd')
  if not found[1] then
    workers[id] = false
    return false
  end
  local info, figures = unpack_one(found[1]), unpack_one(found[2])
  worker = {
    id = id, key = worker_key(id), name = info[1], slots = info[2], prefetch = info[3], queues = info[4], tags = info[5],
    only_tagged = info[6], done = figures[1], held = figures[2], long = figures[3], load_s = figures[4], claims = {},
    messages = {},
    written = {}, sent = {},
  }
  workers[id] = worker
  return worker
end

-- A supervisor that speaks lives.
local function hear(id)
  local worker = load_worker(id)
  if worker and not worker.is_heard then
    worker.is_heard = true
    call('ZADD', P .. 'workers', string.format('%.6f', now), id)
  end
  return worker
end

local function tell_worker(worker, message) worker.messages[#worker.messages + 1] = message end

local function claim_of(worker, token)
  local claim = worker.claims[token]
  if claim == nil then
    local raw = call('HGET', worker.key, 'c' .. token)
    local flat = raw and unpack_one(raw)
    claim = flat and {run = flat[1], start = flat[2], stop = flat[3], digest = flat[4], attempt = flat[5], since = flat[6],
                      seconds = flat[7], reports = flat[8]}
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

-- Routes: what runs ask of a supervisor. For each that was ever asked for, the supervisors that serve it are kept in the
-- order in which they should be taken, so that the choice costs one command however many there are (core/workforce.py).
local function serving_key(route) return P .. 's:' .. route end

local function contains(list, value)
  for _, other in ipairs(list) do
    if other == value then return true end
  end
  return false
end

local function serves(worker, route)
  local flat = unpack_one(route)
  if not contains(worker.queues, flat[1]) then return false end
  if #flat[2] == 0 then return not worker.only_tagged end
  for _, tag in ipairs(flat[2]) do
    if not contains(worker.tags, tag) then return false end
  end
  return true
end

-- Somebody idle first, of those who can do least else, and has most room of these.
local function suitability(worker)
  local free = worker.slots - worker.held
  return (free > 0 and 1e12 or 0) - (#worker.queues + #worker.tags) * 1e7 + free
end

local function id_in(tag)
  local hex = string.match(tag, '^@(%x+)$')
  return hex and (string.gsub(hex, '%x%x', function(byte) return string.char(tonumber(byte, 16)) end))
end

-- The id of the one supervisor that is meant, if there is an address among the tags (core/routing.py), or false. Such a
-- route is not kept: nobody who comes later can have that address.
local function addressee_of(route)
  if addressees[route] == nil then
    addressees[route] = false
    for _, tag in ipairs(unpack_one(route)[2]) do addressees[route] = id_in(tag) or addressees[route] end
  end
  return addressees[route]
end

local function worker_at(id, route)
  local worker = load_worker(id)
  return worker and serves(worker, route) and worker or nil
end

local function slots_for(route)
  local id = addressee_of(route)
  if id then
    local worker = worker_at(id, route)
    return worker and worker.slots or 0
  end
  if not route_slots[route] then route_slots[route] = tonumber(call('HGET', P .. 'routes', route)) or 0 end
  return route_slots[route]
end

local function serve(worker, route, sign)
  if not serves(worker, route) then return end
  route_slots[route] = call('HINCRBY', P .. 'routes', route, sign * worker.slots + 0) -- Redis knows no number -0
  serving[route] = nil
  if sign > 0 then
    call('ZADD', serving_key(route), string.format('%.0f', suitability(worker)), worker.id)
  else
    call('ZREM', serving_key(route), worker.id)
  end
end

local function open_route(route)
  if contains(known_routes, route) or addressee_of(route) then return end
  known_routes[#known_routes + 1] = route
  call('HSET', P .. 'g', 'routes', pack(known_routes))
  for _, id in ipairs(call('ZRANGE', P .. 'workers', 0, -1)) do
    local worker = load_worker(id)
    if worker then serve(worker, route, 1) end
  end
end

-- Who should be given such work; the first few of the order are enough, since a call changes few of them.
local CANDIDATES = 16
local function pick_worker(route)
  local only = addressee_of(route)
  if only then return worker_at(only, route) end
  if not serving[route] then serving[route] = call('ZREVRANGE', serving_key(route), 0, CANDIDATES - 1) end
  local best, best_rank
  for _, id in ipairs(serving[route]) do
    local worker = load_worker(id)
    local rank = worker and suitability(worker)
    if rank and (not best or rank > best_rank) then best, best_rank = worker, rank end
  end
  return best
end

local function change_load(worker, claim, sign)
  worker.held = worker.held + sign
  if not claim.seconds or claim.seconds > SHORT_S then worker.long = worker.long + sign end
  worker.load_s = worker.held == 0 and 0 or worker.load_s + sign * (claim.seconds or 0)
  worker.is_changed = true
end

local function write_claim(worker, token, claim) -- reports: how many of its output were taken
  worker.written['c' .. token] = pack({
    claim.run, claim.start, claim.stop, claim.digest, claim.attempt, claim.since, claim.seconds or false, claim.reports})
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

local function join_or_part(worker, sign)
  for _, route in ipairs(known_routes) do serve(worker, route, sign) end
  G.slots = G.slots + sign * worker.slots
  are_workers_changed = true
end

local function save_worker(worker)
  if #worker.messages > 0 then
    call('XADD', inbox_key(worker.id), '*', 'm', array(#worker.messages) .. table.concat(worker.messages))
  end
  if not worker.is_changed then return end
  local set, gone = {'d', pack({worker.done, worker.held, worker.long, worker.load_s})}, {}
  for field, claim in pairs(worker.written) do
    if claim then
      set[#set + 1] = field
      set[#set + 1] = claim
    else
      gone[#gone + 1] = field
    end
  end
  if #gone > 0 then call('HDEL', worker.key, unpack(gone)) end
  call('HSET', worker.key, unpack(set))
  local rank = string.format('%.0f', suitability(worker))
  for _, route in ipairs(known_routes) do call('ZADD', serving_key(route), 'XX', rank, worker.id) end
end

-- How many items a claim takes, learnt from how long they run. A translation of core/chunking.py.
local function sizer_of(digest)
  local sizer = sizers[digest]
  if not sizer then
    local raw = call('HGET', P .. 'sizers', digest)
    local flat = raw and unpack_one(raw) or {false, 1}
    sizer = {seconds = flat[1], ramp = flat[2]}
    sizers[digest] = sizer
  end
  return sizer
end

local function learn(digest, items, seconds)
  local sizer, observed = sizer_of(digest), max(seconds, 1e-9) / items
  if not sizer.seconds then
    sizer.seconds = observed
  else
    local weight = items >= floor(sizer.ramp / 2) and 0.4 or 0.1
    sizer.seconds = sizer.seconds + weight * (observed - sizer.seconds)
  end
  if items >= sizer.ramp then sizer.ramp = items * 2 end
  sizer.is_changed = true
end

local function claim_size(run)
  local spec = spec_of(run)
  if spec.chunksize then return spec.chunksize end
  local sizer = sizer_of(spec.digest)
  if not sizer.seconds then return 1 end
  local waiting = max(run.counts[PENDING], 1)
  local wanted, share = floor(SHORT_S / sizer.seconds), math.ceil(waiting / max(slots_for(spec.route), 1))
  return max(1, min(wanted, sizer.ramp, max(share, floor(FLOOR_S / sizer.seconds)), waiting))
end

local SIZERS_KEPT = 4096
local function save_sizers()
  for digest, sizer in pairs(sizers) do
    if sizer.is_changed then
      if call('HSET', P .. 'sizers', digest, pack({sizer.seconds, sizer.ramp})) == 1
         and call('HLEN', P .. 'sizers') > SIZERS_KEPT then
        call('HDEL', P .. 'sizers', unpack(call('HRANDFIELD', P .. 'sizers', SIZERS_KEPT / 8)))
      end
    end
  end
end
