-- What brings work: refused as a whole when the server is out of memory, unlike all that finishes or frees.
-- s client run asked function blocks closed family | f client run blocks closed
local function feed(run, blocks, closed)
  local spec, d, before = run.spec, run.d, run.d.total
  open_route(spec.route)
  for _, block in ipairs(blocks) do
    local start, stop = block[1], block[2]
    if start == d.total and stop > start then
      add_block(run, start, stop, block[3])
      d.total = stop
      if spec.expires_s then add_expiry(run, stop, now + spec.expires_s) end
      if spec.countdown_s > 0 then
        local due = now + spec.countdown_s
        set_items(run, start, stop, {SCHEDULED, 0, 0, 0, 0, 0, 0, due})
        count(run, SCHEDULED, stop - start)
        add_wake(due, run, start, stop, 'due')
      else
        count(run, PENDING, stop - start)
        push_back(run, start, stop)
      end
    end
  end
  if closed then d.closed = 1 end
  if d.is_revoked == 1 and d.total > before then
    apply(run, {trigger = 'revoke'}, before, d.total, {reason = 'revoked before it started'})
  end
  if spec.expires_s and d.total > before then add_wake(now + spec.expires_s, run, before, d.total, 'expire') end
  -- What was fed the client knows; but not that nobody could run it.
  changed(run, not (is_finished(run) or d.is_revoked == 1 or (G.slots > 0 and slots_for(spec.route) == 0)))
end

-- A run that was submitted inside an item of another one: a revoke of the item is one of the run, however late it comes.
local function add_child(run, parent_id, item)
  run.d.parent = parent_id
  call('HSET', children_key(parent_id), run.id, item)
  local parent = load_run(parent_id)
  local found = parent and segments(parent, item, item + 1)[1]
  if found and (found[3][REVOKING] == 1 or found[3][STATE] == REVOKED) then run.d.is_revoked = 1 end
end

-- Make room by forgetting finished runs that nobody is about to read, oldest first.
local MOST_LOOKED_AT = 1024
local function evict(wanted)
  for _, id in ipairs(call('ZRANGE', P .. 'runs', 0, MOST_LOOKED_AT - 1)) do
    if G.bytes + wanted <= MAX_BYTES then return true end
    local run = load_run(id)
    if run and is_finished(run) and #followers_of(run) == 0 then forget_run(run) end
  end
  return G.bytes + wanted <= MAX_BYTES
end

local function is_full(blocks)
  local items, bytes = 0, 0
  for _, block in ipairs(blocks) do
    items = items + block[2] - block[1]
    bytes = bytes + #block[3]
  end
  if G.items + items > MAX_ITEMS then return true end
  return G.bytes + bytes > MAX_BYTES and not evict(bytes)
end

-- total, is_full, known, slots
local function receipt(total, full, known, slots)
  return '\148' .. int(total) .. bool(full) .. bool(known) .. int(slots)
end

local function feed_known(run, blocks, closed)
  local is_new = false
  for _, block in ipairs(blocks) do is_new = is_new or block[1] >= run.d.total end
  if is_new and run.d.closed == 0 and is_full(blocks) then return receipt(run.d.total, true, true, slots_for(run.spec.route)) end
  if run.d.closed == 0 then feed(run, blocks, closed) end
  return receipt(run.d.total, false, true, slots_for(run.spec.route))
end

operations.s = function(client, id, asked, body, blocks, closed, family)
  hear_client(client)
  local run = load_run(id)
  if run then return feed_known(run, blocks, closed) end
  if is_full(blocks) then return receipt(0, true, true, 0) end
  if is_lone and begin_lone(client, id, asked, blocks, closed, family) then
    return receipt(1, false, true, slots_for(spec_of(asked).route))
  end
  run = new_run(id, setmetatable({followers = client, submitted_at = now, counts = {}}, FIGURES), asked)
  if not use_function(run.spec.digest, body) then
    runs[id] = false
    return receipt(0, false, false, 0)
  end
  run.is_new = true
  expect_end(id, now + run.spec.result_expires_s)
  if family then
    run.d.depth = family[3]
    if family[1] then add_child(run, family[1], family[2]) end
  end
  feed(run, blocks, closed)
  return receipt(run.d.total, false, true, slots_for(run.spec.route))
end

operations.f = function(client, id, blocks, closed)
  hear_client(client)
  local run = load_run(id)
  if not run then return receipt(0, false, false, 0) end
  return feed_known(run, blocks, closed)
end
