-- What many runs of one call change in the same keys: noted down, and written once.
local add_to_index, drop_from_index, drop_key, use_function, leave_function, drop_what_is_gone, save_ledger
do -- the rest is this part's own: a chunk may have 200 local names
  local index_changes -- name of a sorted set -> member -> score, or false: it goes
  local keys_gone     -- keys of runs that were forgotten
  local uses          -- digest -> number of runs that use the function
  local uses_before
  local times         -- seconds from now -> as a score
  resets[#resets + 1] = function()
    index_changes, keys_gone, uses, uses_before, times = {runs = {}, ends = {}}, {}, {}, {}, {}
  end

  -- With a time that is so many seconds from now; there are few such.
  function add_to_index(name, member, seconds)
    if not times[seconds] then times[seconds] = string.format('%.6f', now + seconds) end
    index_changes[name][member] = times[seconds]
  end
  function drop_from_index(name, member) index_changes[name][member] = false end
  function drop_key(key) keys_gone[#keys_gone + 1] = key end

  local function uses_of(digest)
    if not uses[digest] then
      uses[digest] = tonumber(call('HGET', P .. 'uses', digest)) or 0
      uses_before[digest] = uses[digest]
    end
    return uses[digest]
  end

  -- One run more needs the function; false if nobody has brought it.
  function use_function(digest, body)
    if uses_of(digest) == 0 then
      if not body then return false end
      call('HSET', P .. 'functions', digest, body)
    end
    uses[digest] = uses[digest] + 1
    return true
  end

  function leave_function(digest) uses[digest] = max(uses_of(digest) - 1, 0) end

  local MOST_ARGUMENTS = 1000
  local function call_with_all(command, key, arguments)
    for first = 1, #arguments, MOST_ARGUMENTS do
      call(command, key, unpack(arguments, first, min(first + MOST_ARGUMENTS - 1, #arguments)))
    end
  end

  -- Before runs are written: one may have been forgotten and have come again.
  function drop_what_is_gone()
    for first = 1, #keys_gone, MOST_ARGUMENTS do
      call('UNLINK', unpack(keys_gone, first, min(first + MOST_ARGUMENTS - 1, #keys_gone)))
    end
  end

  local function forget_function(digest)
    call('HDEL', P .. 'uses', digest)
    call('HDEL', P .. 'functions', digest)
    for _, id in ipairs(call('ZRANGE', P .. 'workers', 0, -1)) do
      if call('SREM', worker_key(id) .. ':f', digest) == 1 then
        tell_worker(load_worker(id), '\146\169Forgotten\129\167digests\145' .. bin(digest))
      end
    end
  end

  function save_ledger()
    for name, changes in pairs(index_changes) do
      local added, gone = {}, {}
      for member, score in pairs(changes) do
        if score then
          added[#added + 1] = score
          added[#added + 1] = member
        else
          gone[#gone + 1] = member
        end
      end
      call_with_all('ZADD', P .. name, added)
      call_with_all('ZREM', P .. name, gone)
    end
    for digest, number in pairs(uses) do
      if number == 0 then
        forget_function(digest)
      elseif number ~= uses_before[digest] then
        call('HSET', P .. 'uses', digest, number)
      end
    end
  end
end
