-- The items of a run: records per range, in pages, so that a million items in ten states of affairs cost ten entries
-- and an event reads and writes only the pages that it touches.
local SCHEDULED, PENDING, RECEIVED, STARTED, RETRY = 0, 1, 2, 3, 4
local SUCCESS, FAILURE, REVOKED, LOST, EXPIRED = 5, 6, 7, 8, 9
-- fields of a record
local STATE, ATTEMPT, DELIVERIES, DEATHS, RETRIES, TOKEN, REVOKING, DUE = 1, 2, 3, 4, 5, 6, 7, 8
local FIELDS = 8
local PAGE_ITEMS = 512
local PRISTINE = {PENDING, 0, 0, 0, 0, 0, 0, 0} -- what an item is of which no page was ever written

local with, page_of, segments, set_items
do -- the rest is this part's own: a chunk may have 200 local names
  local function same(a, b)
    if a == b then return true end
    for i = 1, FIELDS do
      if a[i] ~= b[i] then return false end
    end
    return true
  end

  function with(record, changes)
    local copy = {}
    for i = 1, FIELDS do copy[i] = changes[i] or record[i] end
    return copy
  end

  -- A page is a list of {stop, record}; the first one is kept with the run.
  function page_of(run, k)
    local page = run.pages[k]
    if page then return page end
    if k == 0 then
      page = run.d.page
    else
      local raw = call('HGET', run.key, 'p' .. k)
      page = raw and decode(raw)
    end
    page = page or {{(k + 1) * PAGE_ITEMS, PRISTINE}}
    run.pages[k] = page
    return page
  end

  -- Maximal ranges of equal records within start to stop, in order, cut at these bounds: {{first, last, record}, ...}
  function segments(run, start, stop)
    if run.d.total == 1 then
      if start >= 1 or stop <= 0 then return {} end
      local only = run.only or {{0, 1}}
      run.only, only[1][3] = only, page_of(run, 0)[1][2]
      return only
    end
    start, stop = max(start, 0), min(stop, run.d.total)
    local found, n = {}, 0
    while start < stop do
      for _, segment in ipairs(page_of(run, floor(start / PAGE_ITEMS))) do
        if start >= stop then break end
        if segment[1] > start then
          local last = min(segment[1], stop)
          if n > 0 and found[n][2] == start and same(found[n][3], segment[2]) then
            found[n][2] = last
          else
            n = n + 1
            found[n] = {start, last, segment[2]}
          end
          start = last
        end
      end
    end
    return found
  end

  local function set_in_page(run, k, start, stop, record)
    local old, new, n = page_of(run, k), {}, 0
    local function add(upto, value)
      if n > 0 and same(new[n][2], value) then
        new[n][1] = upto
      else
        n = n + 1
        new[n] = {upto, value}
      end
    end
    local first, is_set = k * PAGE_ITEMS, false
    for _, segment in ipairs(old) do
      if first < start then add(min(segment[1], start), segment[2]) end
      if segment[1] > start and not is_set then
        add(stop, record)
        is_set = true
      end
      if segment[1] > stop then add(segment[1], segment[2]) end
      first = segment[1]
    end
    run.pages[k] = new
    run.dirty_pages[k] = true
  end

  -- Give the items start to stop, which the run has, the record.
  function set_items(run, start, stop, record)
    if run.d.total == 1 and run.d.closed == 1 then
      local page = page_of(run, 0)
      page[1][1], page[1][2], page[2], run.dirty_pages[0] = PAGE_ITEMS, record, nil, true
      return
    end
    while start < stop do
      local k = floor(start / PAGE_ITEMS)
      local last = min(stop, (k + 1) * PAGE_ITEMS)
      set_in_page(run, k, start, last, record)
      start = last
    end
  end
end

-- The items that wait, as ranges in the order in which they are to be taken. The head is kept with the run, and the rest,
-- which most runs never have, in a list.
local function queue_key(run) return P .. 'q:' .. run.id end

local function push_back(run, start, stop)
  local d = run.d
  if d.head_start == d.head_stop then
    d.head_start, d.head_stop = start, stop
  elseif d.queued == 0 and d.head_stop == start then
    d.head_stop = stop
  else
    d.queued = call('RPUSH', queue_key(run), start .. ' ' .. stop)
  end
end

local function push_front(run, start, stop)
  local d = run.d
  if d.head_start == d.head_stop then
    d.head_start, d.head_stop = start, stop
  elseif d.head_start == stop then
    d.head_start = start
  else
    d.queued = call('LPUSH', queue_key(run), d.head_start .. ' ' .. d.head_stop)
    d.head_start, d.head_stop = start, stop
  end
end

local function drop_from_queue(run, count)
  local d = run.d
  d.head_start = d.head_start + count
  if d.head_start >= d.head_stop then
    d.head_start, d.head_stop = 0, 0
    if d.queued > 0 then
      local start, stop = string.match(call('LPOP', queue_key(run)), '(%d+) (%d+)')
      d.head_start, d.head_stop, d.queued = tonumber(start), tonumber(stop), d.queued - 1
    end
  end
end
