-- Shared by all scripts: names, the clock, msgpack, and the figures of the whole broker.
--
-- What is defined here may live longer than one call (a function library is built once), so all that belongs to a call is
-- set by `begin`. KEYS[1]: prefix of all keys, with the hash tag that keeps them in one slot. ARGV[1]: limits and a seed.
-- ARGV[2...]: operations.
local call, pack, unpack_one, floor, min, max -- the server's libraries, which exist only while a call runs

local P, now
local LEASE_S, CLIENT_LEASE_S, MAX_ITEMS, MAX_BYTES
local resets = {} -- what else belongs to a call, set anew by each part

-- No clock but the server's is ever asked: clients send durations.
local function clock() local t = call('TIME'); return t[1] + t[2] / 1e6 end

-- msgpack by hand, because Lua has no bytes: what Python declares as bytes must travel as such.
local function bin(s)
  local n = #s
  if n < 256 then return '\196' .. string.char(n) .. s end
  if n < 65536 then return '\197' .. struct.pack('>I2', n) .. s end
  return '\198' .. struct.pack('>I4', n) .. s
end
local function array(n)
  if n < 16 then return string.char(144 + n) end
  if n < 65536 then return '\220' .. struct.pack('>I2', n) end
  return '\221' .. struct.pack('>I4', n)
end
local function bool(value) return value and '\195' or '\194' end

-- Figures of the whole broker: loaded once, written back at the end if they changed.
local FIGURE_NAMES = {'items', 'bytes', 'slots', 'token', 'order', 'routes'}
local G, G_before, refused_events
local known_routes -- list of all routes that were ever asked for

local function load_figures()
  G, G_before, refused_events = {}, {}, 0
  local values = call('HMGET', P .. 'g', unpack(FIGURE_NAMES))
  for i = 1, 5 do
    G[FIGURE_NAMES[i]] = tonumber(values[i]) or 0
    G_before[FIGURE_NAMES[i]] = G[FIGURE_NAMES[i]]
  end
  known_routes = values[6] and unpack_one(values[6]) or {}
end

local function begin(keys, argv)
  call, pack, unpack_one = redis.call, cmsgpack.pack, cmsgpack.unpack
  floor, min, max = math.floor, math.min, math.max
  P = keys[1]
  now = clock()
  local limits = unpack_one(argv[1])
  LEASE_S, CLIENT_LEASE_S, MAX_ITEMS, MAX_BYTES = limits[1], limits[2], limits[3], limits[4]
  math.randomseed(limits[5])
  load_figures()
  for _, reset in pairs(resets) do reset() end
end

local function save_figures()
  local changed = {}
  for name, value in pairs(G) do
    if value ~= G_before[name] then
      changed[#changed + 1] = name
      changed[#changed + 1] = string.format('%.0f', value)
    end
  end
  if #changed > 0 then call('HSET', P .. 'g', unpack(changed)) end
  if refused_events > 0 then call('HINCRBY', P .. 'g', 'refused', refused_events) end
end
