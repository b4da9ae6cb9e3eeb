-- What many runs of one call change in the same keys: noted down, and written once.
local expect_end, forget_end, drop_key, use_function, leave_function, drop_what_is_gone, save_ledger
do -- the rest is this part's own: a chunk may have 200 local names
  local ends      -- id of a run -> time before which it need not be looked at, or false: it is forgotten
  local keys_gone -- keys of runs that were forgotten
  local habits    -- digest of a function -> what is known of it
  resets[#resets + 1] = function() ends, keys_gone, habits = fresh(ends), fresh(keys_gone), fresh(habits) end

  -- All runs, each with the first moment at which its results could expire.
  function expect_end(id, time) ends[id] = time end
  function forget_end(id) ends[id] = false end
  function drop_key(key) keys_gone[#keys_gone + 1] = key end

  -- Of a function: how many runs use it, how long an item takes (false: not known), and how many items a claim may take.
  local HABITS_FORMAT = '>ddd'
  function habits_of(digest)
    local found = habits[digest]
    if not found then
      local raw = call('HGET', P .. 'habits', digest)
      if raw then
        local uses, seconds, ramp = unpack_flat(HABITS_FORMAT, raw)
        found = {uses = uses, seconds = seconds >= 0 and seconds, ramp = ramp, is_changed = false}
      else
        found = {uses = 0, seconds = false, ramp = 1, is_changed = false}
      end
      habits[digest] = found
    end
    return found
  end

  -- One run more needs the function; false if nobody has brought it.
  function use_function(digest, body)
    local found = habits_of(digest)
    if found.uses == 0 then
      if not body then return false end
      call('HSET', P .. 'functions', digest, body)
    end
    found.uses, found.is_changed = found.uses + 1, true
    return true
  end

  function leave_function(digest)
    local found = habits_of(digest)
    found.uses, found.is_changed = max(found.uses - 1, 0), true
  end

  local MOST_ARGUMENTS = 1000
  local function call_with_all(command, key, arguments)
    if #arguments > 0 and #arguments <= MOST_ARGUMENTS then return call(command, key, unpack(arguments)) end
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
    if call('HDEL', P .. 'functions', digest) == 0 then return end
    for _, id in ipairs(call('ZRANGE', P .. 'workers', 0, -1)) do
      if call('SREM', worker_key(id) .. ':f', digest) == 1 then
        local worker = load_worker(id)
        if worker.sent == digest then worker.sent, worker.is_changed = '', true end
        tell_worker(worker, '\146\169Forgotten\129\167digests\145' .. bin(digest))
      end
    end
  end

  -- How long items of functions take that nobody uses at the moment is kept of so many.
  local HABITS_KEPT, FORGOTTEN_AT_ONCE = 4096, 512
  local function save_habits(digest, found)
    local raw = pack_flat(HABITS_FORMAT, found.uses, found.seconds or -1, found.ramp)
    if call('HSET', P .. 'habits', digest, raw) == 0 then return end
    local known = call('HLEN', P .. 'habits')
    if known <= HABITS_KEPT or known % FORGOTTEN_AT_ONCE > 0 then return end
    local unused = {}
    local some = call('HRANDFIELD', P .. 'habits', FORGOTTEN_AT_ONCE, 'WITHVALUES')
    for i = 1, #some, 2 do
      if unpack_flat(HABITS_FORMAT, some[i + 1]) == 0 then unused[#unused + 1] = some[i] end
    end
    call_with_all('HDEL', P .. 'habits', unused)
  end

  local function save_ends()
    local added, gone = {}, {}
    for id, time in pairs(ends) do
      if time then
        added[#added + 1] = string.format('%.0f', micros(time))
        added[#added + 1] = id
      else
        gone[#gone + 1] = id
      end
    end
    call_with_all('ZADD', P .. 'runs', added)
    call_with_all('ZREM', P .. 'runs', gone)
  end

  function save_ledger()
    if next(ends) then save_ends() end
    for digest, found in pairs(habits) do
      if found.is_changed then
        save_habits(digest, found)
        if found.uses == 0 then forget_function(digest) end
      end
    end
  end
end
