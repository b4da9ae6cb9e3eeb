-- What tasks print: a stream of numbered events for each run, apart from its results, which it must never hold up. Of each
-- item, and of the whole run, the beginning and the end are kept, text and displays ('t', 'd') apart, as in core/output.py.
local keep_event, save_windows, output_note, output_page, forget_output
do -- the rest is this part's own: a chunk may have 200 local names
  local EVENT_BYTES = 128 -- what an event costs beside what it holds
  local ITEM_LIMIT = {t = 131072, d = 8388608}
  local RUN_LIMIT = {t = 4194304, d = 16777216}

  -- e:<run> events | e:<run>:w windows: what is left of the head, bytes of the tail, events that are kept, and of the run the
  -- number with which its tail begins | e:<run>:t the tails of items, in order: "item kind number size"
  local function output_key(run) return P .. 'e:' .. run.id end
  local function windows_key(run) return output_key(run) .. ':w' end
  local function tails_key(run) return output_key(run) .. ':t' end
  local function event_id(number) return string.format('0-%.0f', number + 1) end

  function forget_output(run) call('UNLINK', output_key(run), windows_key(run), tails_key(run)) end

  local function window_of(run, name, limit)
    run.windows = run.windows or {}
    local window = run.windows[name]
    if not window then
      local raw = call('HGET', windows_key(run), name)
      local flat = raw and decode(raw) or {limit, 0, 0, 0}
      window = {head_left = flat[1], tail_bytes = flat[2], kept = flat[3], first = flat[4]}
      run.windows[name] = window
    end
    return window
  end

  function save_windows(run)
    for name, window in pairs(run.windows or {}) do
      if window.kept == 0 then
        call('HDEL', windows_key(run), name)
      else
        call('HSET', windows_key(run), name, pack({window.head_left, window.tail_bytes, window.kept, window.first}))
      end
    end
    run.windows = nil
  end

  local function tail_member(name, number, size) return string.format('%s %016.0f %.0f', name, number, size) end

  local function drop_event(run, name, number, size)
    local kind = string.sub(name, -1)
    local item, whole = window_of(run, name, ITEM_LIMIT[kind]), window_of(run, kind, RUN_LIMIT[kind])
    call('XDEL', output_key(run), event_id(number))
    item.kept, whole.kept = item.kept - 1, whole.kept - 1
    if call('ZREM', tails_key(run), tail_member(name, number, size)) == 1 then item.tail_bytes = item.tail_bytes - size end
    if whole.tail_bytes > 0 and number >= whole.first then whole.tail_bytes = whole.tail_bytes - size end
    run.d.output_bytes = run.d.output_bytes - size
  end

  local function shorten_item(run, name, newest)
    local window = window_of(run, name)
    while window.tail_bytes > ITEM_LIMIT[string.sub(name, -1)] do
      local oldest = call('ZRANGEBYLEX', tails_key(run), '[' .. name .. ' ', '[' .. name .. '!', 'LIMIT', 0, 1)[1]
      local number, size = string.match(oldest, ' (%d+) (%d+)$')
      if tonumber(number) == newest then return end
      drop_event(run, name, tonumber(number), tonumber(size))
    end
  end

  local function shorten_run(run, kind, newest)
    local window = window_of(run, kind)
    while window.tail_bytes > RUN_LIMIT[kind] and window.first < newest do
      local oldest = call('XRANGE', output_key(run), event_id(window.first), event_id(newest), 'COUNT', 1)[1]
      local number, name, body = tonumber(string.sub(oldest[1], 3)) - 1, oldest[2][1], oldest[2][2]
      if number < newest and string.sub(name, -1) == kind then drop_event(run, name, number, EVENT_BYTES + #body) end
      window.first = min(number + 1, newest)
    end
  end

  -- Take in an event; its body is that of the supervisor, which does not know its number.
  function keep_event(run, item, kind, body, worker_name)
    local d, name = run.d, string.format('%.0f', item) .. kind
    local number = d.output_end
    local text = '\150' .. string.sub(body, 2) .. pack(number, worker_name)
    local size = EVENT_BYTES + #text
    local window, whole = window_of(run, name, ITEM_LIMIT[kind]), window_of(run, kind, RUN_LIMIT[kind])
    if not run.printed then run.printed, run.printed_from, run.printed_bytes = {}, number, 0 end
    run.printed[#run.printed + 1] = text
    run.printed_bytes = run.printed_bytes + size
    d.output_end, d.output_bytes = number + 1, d.output_bytes + size
    call('XADD', output_key(run), event_id(number), name, text)
    window.kept, whole.kept = window.kept + 1, whole.kept + 1
    if window.tail_bytes == 0 and size <= window.head_left then
      window.head_left = window.head_left - size
    else
      call('ZADD', tails_key(run), 0, tail_member(name, number, size))
      window.tail_bytes = window.tail_bytes + size
      shorten_item(run, name, number)
    end
    if whole.tail_bytes == 0 and size <= whole.head_left then
      whole.head_left = whole.head_left - size
    else
      if whole.tail_bytes == 0 then whole.first = number end
      whole.tail_bytes = whole.tail_bytes + size
      shorten_run(run, kind, number)
    end
  end

  -- run, cursor, until, events, bytes
  function output_note(run, cursor, events, upto)
    local size = 0
    for _, event in ipairs(events) do size = size + EVENT_BYTES + #event end
    return '\149' .. bin(run.id) .. pack(cursor, upto) .. array(#events) .. table.concat(events) .. pack(size)
  end

  -- What is kept from an event on: at least one, beyond that only as many as there is room for.
  function output_page(run, cursor, room)
    cursor = min(max(cursor, 0), run.d.output_end)
    local found, position = {}, cursor
    while true do
      local batch = call('XRANGE', output_key(run), event_id(position), '+', 'COUNT', 16)
      if #batch == 0 then return output_note(run, cursor, found, run.d.output_end) end
      for _, event in ipairs(batch) do
        room = room - EVENT_BYTES - #event[2][2]
        if #found > 0 and room < 0 then return output_note(run, cursor, found, position) end
        found[#found + 1] = event[2][2]
        position = tonumber(string.sub(event[1], 3))
      end
    end
  end
end
