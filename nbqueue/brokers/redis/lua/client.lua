-- What a client asks besides bringing work.
-- h client (hello) | o (who works) | p client (ping) | g client (goodbye) | a client run cursor entries bytes (attach, read on)
-- v run start stop manner (revoke)
-- e client run cursor bytes (read what was printed) | k client bytes (has taken so much of it)
-- u queue (purge) | q client request order workers (order) | d client runs (forget) | r client runs (has read all of it) | i (inspect)
local function crew() -- of each supervisor: slots, offer
  local members = call('HVALS', P .. 'crew')
  return array(#members) .. table.concat(members)
end

operations.h = function(client)
  if ear_of(client) then call('UNLINK', news_key(client)) end
  give_ear(client, EAR)
  call('HDEL', P .. 'printed', client)
  return crew()
end

operations.o = crew

operations.p = function(client) return bool(hear_client(client)) end

operations.g = function(client)
  forget_client(client)
  return bool(true)
end

operations.a = function(client, id, cursor, entries, bytes)
  hear_client(client)
  local run = load_run(id)
  if not run then return bool(false) end
  follow(run, client)
  cursor = min(max(cursor, 0), run.d.log_length)
  local found, size = {}, 0
  while cursor + #found < run.d.log_length and #found < entries and size < bytes do
    -- what was logged in this call is not in the store yet
    local first = cursor + #found
    local upto = min(first + min(entries - #found, 256), run.log_before)
    local batch = first < upto and read_log(run, first, upto) or {run.log[first - run.log_before + 1]}
    for _, entry in ipairs(batch) do
      if size >= bytes then break end
      found[#found + 1] = entry
      size = size + #entry
    end
  end
  return news(run, cursor, found)
end

operations.e = function(client, id, cursor, bytes)
  hear_client(client)
  local run = load_run(id)
  return run and output_page(run, cursor, bytes) or bool(false)
end

operations.k = function(client, bytes)
  if call('HEXISTS', P .. 'printed', client) == 1 then call('HINCRBY', P .. 'printed', client, -bytes) end
  return bool(true)
end

local function revoke(id, start, stop, manner)
  local run = load_run(id)
  if not run then return end
  if start == 0 and stop >= 4e18 then run.d.is_revoked = 1 end
  apply(run, {trigger = 'revoke', manner = manner}, start, stop, {reason = 'revoked before it started'})
  changed(run)
  local children = call('HGETALL', children_key(id))
  for i = 1, #children, 2 do
    local item = tonumber(children[i + 1])
    if start <= item and item < stop then revoke(children[i], 0, 2 ^ 62, manner) end
  end
end

operations.v = function(id, start, stop, manner)
  revoke(id, start, stop, manner)
  return bool(true)
end

operations.u = function(queue)
  local count = 0
  for _, id in ipairs(call('ZRANGE', P .. 'runs', 0, -1)) do
    local run = load_run(id)
    if run and run.spec.queue == queue and not is_finished(run) then
      for _, segment in ipairs(segments(run, 0, run.d.total)) do
        local state = segment[3][STATE]
        if state == SCHEDULED or state == PENDING or state == RETRY then
          count = count + segment[2] - segment[1]
          apply(run, {trigger = 'revoke'}, segment[1], segment[2], {reason = "purged from queue '" .. queue .. "'"})
        end
      end
      changed(run)
    end
  end
  return pack(count)
end

operations.q = function(client, request, order, ids)
  local asked = {}
  for _, id in ipairs(ids or call('ZRANGE', P .. 'workers', 0, -1)) do
    local worker = load_worker(id)
    if worker then
      tell_worker(worker, '\146\165Carry\147' .. bin(client) .. pack(request) .. order)
      asked[#asked + 1] = '\146' .. bin(id) .. pack(worker.name)
    end
  end
  return '\146' .. pack(request) .. array(#asked) .. table.concat(asked)
end

operations.d = function(client, ids)
  for _, id in ipairs(ids) do
    local run = load_run(id)
    if run then
      unfollow(run, client)
      if is_finished(run) then forget_run(run) end
    end
  end
  return bool(true)
end

operations.r = function(client, ids)
  for _, id in ipairs(ids) do
    local run = load_run(id)
    if run then unfollow(run, client) end
  end
  return bool(true)
end

do -- the rest is this part's own: a chunk may have 200 local names
  local RUNS_SHOWN, RUNS_COUNTED = 2000, 20000 -- the newest ones

  local function chunk_view(worker, token, claim, run) -- worker, run, label, start, stop, attempt, item, held_s
    local item
    for _, segment in ipairs(segments(run, claim.start, claim.stop)) do
      if not item and segment[3][STATE] == STARTED and segment[3][TOKEN] == token then item = segment[1] end
    end
    return '\152' .. pack(worker.name) .. bin(claim.run) .. pack(run.spec.label, claim.start, claim.stop, claim.attempt)
      .. (item and pack(item) or '\192') .. pack(now - claim.since)
  end

  local function worker_view(worker, seen_at, chunks) -- info, claims, running, done, seen_s_ago
    local labels, seen = {}, {}
    for _, token in ipairs(tokens_of(worker)) do
      local claim = claim_of(worker, token)
      local run = load_run(claim.run)
      if run then
        local label = run.spec.label
        if not seen[label] then labels[#labels + 1] = label end
        seen[label] = true
        chunks[#chunks + 1] = chunk_view(worker, token, claim, run)
      end
    end
    table.sort(labels)
    return '\149' .. call('HGET', worker.key, 'v') .. pack(worker.held, labels, worker.done, now - max(tonumber(seen_at), worker.heard_at))
  end

  local function run_view(run) -- id, label, counts, age_s, finished, queue, tags, priority, scheduled
    local spec, c = run.spec, run.counts
    return '\153' .. bin(run.id) .. pack(spec.label) .. counts_of(run) .. pack(now - run.d.submitted_at)
      .. bool(is_finished(run)) .. pack(spec.queue, spec.tags, spec.priority, c[SCHEDULED] + c[RETRY])
  end

  local function count_into(queues, run)
    if is_finished(run) then return end
    local name, c = run.spec.queue, run.counts
    local sums = queues[name] or {name, 0, 0, 0}
    queues[name] = sums
    sums[2], sums[3] = sums[2] + c[PENDING], sums[3] + c[SCHEDULED] + c[RETRY]
    sums[4] = sums[4] + c[RECEIVED] + c[STARTED]
  end

  operations.i = function() -- workers, runs, clients, refused events, bytes, chunks, queues, number of runs
    local views, shown, chunks, queues, sums = {}, {}, {}, {}, {}
    local found = call('ZRANGE', P .. 'workers', 0, -1, 'WITHSCORES')
    for i = 1, #found, 2 do
      local worker = load_worker(found[i])
      if worker then views[#views + 1] = worker_view(worker, found[i + 1], chunks) end
    end
    local ids = call('ZRANGE', P .. 'runs', -RUNS_COUNTED, -1)
    for i, id in ipairs(ids) do
      local run = load_run(id)
      if run then
        count_into(queues, run)
        if i > #ids - RUNS_SHOWN then shown[#shown + 1] = run_view(run) end
      end
    end
    for _, sum in pairs(queues) do sums[#sums + 1] = sum end
    local refused = (tonumber(call('HGET', P .. 'g', 'refused')) or 0) + refused_events
    return '\152' .. array(#views) .. table.concat(views) .. array(#shown) .. table.concat(shown)
      .. pack(call('ZCARD', P .. 'clients'), refused, G.bytes) .. array(#chunks) .. table.concat(chunks)
      .. pack(sums, call('ZCARD', P .. 'runs'))
  end
end
