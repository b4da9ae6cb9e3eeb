-- Shared by all scripts: names, the clock, msgpack, and the figures of the whole broker.
--
-- What is defined here may live longer than one call (a function library is built once), so all that belongs to a call is
-- set by `begin`. KEYS[1]: prefix of all keys, with the hash tag that keeps them in one slot. ARGV[1]: circumstances of the
-- caller (operations.circumstances). ARGV[2...]: operations.
local call, pack, decode, pack_flat, unpack_flat, floor, min, max -- the server's libraries, which exist only while a call runs

local P, now
local LEASE_S, CLIENT_LEASE_S, MAX_ITEMS, MAX_BYTES
local EAR, CALLER -- of the connection that calls: what tells its list of news from that of a former one; its client, if it is one
local EAR_BYTES = 8
local firsts = {} -- what is made in the first call, because it needs the libraries
local resets = {} -- what else belongs to a call, set anew by each part

-- No clock but the server's is ever asked: clients send durations.
local function clock() local t = call('TIME'); return t[1] + t[2] / 1e6 end

-- As a score: whole microseconds, which the server compares and writes faster than fractions.
local function micros(time)
  local exact = time * 1e6
  return exact - exact % 1
end

-- A function whose answers are kept beyond the call, since they depend on nothing but its argument, of which there are few kinds.
local KEPT = 256
local function remembered(work_out)
  local answers, count = {}, 0
  return function(argument)
    local answer = answers[argument]
    if answer == nil then
      answer = work_out(argument)
      if count >= KEPT then answers, count = {}, 0 end
      answers[argument], count = answer, count + 1
    end
    return answer
  end
end

-- A table for a call: the one of the last call if nothing was put into it.
local function fresh(used) return used and next(used) == nil and used or {} end

local int, str, bin, array
do -- the rest is this part's own: a chunk may have 200 local names
  -- msgpack by hand, because Lua has no bytes: what Python declares as bytes must travel as such. And because most of what is
  -- written is short: to call the server's library for a small number takes 3,000 instructions.
  local BIN_HEADS, TEXT_HEADS, ARRAY_HEADS, SMALL_INTS = {}, {}, {}, {}
  firsts[1] = function()
    for n = 0, 255 do BIN_HEADS[n] = '\196' .. string.char(n) end
    for n = 0, 31 do TEXT_HEADS[n] = string.char(160 + n) end
    for n = 0, 15 do ARRAY_HEADS[n] = string.char(144 + n) end
    for n = 0, 127 do SMALL_INTS[n] = string.char(n) end
  end
  function int(n) return SMALL_INTS[n] or pack(n) end
  function str(s) return #s < 32 and TEXT_HEADS[#s] .. s or pack(s) end
  function bin(s)
    local n = #s
    if n < 256 then return BIN_HEADS[n] .. s end
    if n < 65536 then return '\197' .. pack_flat('>I2', n) .. s end
    return '\198' .. pack_flat('>I4', n) .. s
  end
  function array(n)
    if n < 16 then return ARRAY_HEADS[n] end
    if n < 65536 then return '\220' .. pack_flat('>I2', n) end
    return '\221' .. pack_flat('>I4', n)
  end
end

local function bool(value) return value and '\195' or '\194' end

-- Figures of the whole broker, one string: loaded once, written back at the end if they changed. lanes: in which somebody
-- stands; due: when the first of all wakes is, or 0.
local FIGURES_FORMAT = '>ddddddd'
local G, G_before, refused_events = {}
local stored_routes, stored_ear -- of all routes that were ever asked for; of the client that calls

local function load_figures()
  local found = call('HMGET', P .. 'g', 'f', 'routes', 'n' .. CALLER)
  G_before, refused_events, stored_routes, stored_ear = found[1] or '', 0, found[2], found[3]
  if found[1] then
    G.items, G.bytes, G.slots, G.token, G.order, G.lanes, G.due = unpack_flat(FIGURES_FORMAT, found[1])
  else
    G.items, G.bytes, G.slots, G.token, G.order, G.lanes, G.due = 0, 0, 0, 0, 0, 0, 0
  end
end

local function begin(keys, argv)
  if not call then
    call, pack, decode, pack_flat, unpack_flat = redis.call, cmsgpack.pack, cmsgpack.unpack, struct.pack, struct.unpack
    floor, min, max = math.floor, math.min, math.max
    for i = 1, #firsts do firsts[i]() end
  end
  P = keys[1]
  now = clock()
  local circumstances, seed, position = argv[1]
  LEASE_S, CLIENT_LEASE_S, MAX_ITEMS, MAX_BYTES, seed, position = unpack_flat('>ddddd', circumstances)
  EAR, CALLER = string.sub(circumstances, position, position + EAR_BYTES - 1), string.sub(circumstances, position + EAR_BYTES)
  math.randomseed(seed)
  load_figures()
  for i = 1, #resets do resets[i]() end
end

local function save_figures()
  local figures = pack_flat(FIGURES_FORMAT, G.items, G.bytes, G.slots, G.token, G.order, G.lanes, G.due)
  if figures ~= G_before then call('HSET', P .. 'g', 'f', figures) end
  if refused_events > 0 then call('HINCRBY', P .. 'g', 'refused', refused_events) end
end
