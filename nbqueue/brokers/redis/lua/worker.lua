-- What supervisors report.
-- r worker name slots prefetch queues tags only_tagged view crew (register) | y worker (begins anew after a break) | h worker running (heartbeat)
-- z worker slots prefetch view crew (resize) | b client answer | k run text (remark)
-- s worker token item (started) | c worker token run outcomes final (commit) | e worker token number events (output)
--  l worker (leave)
operations.r = function(id, name, slots, prefetch, queues, tags, only_tagged, view, crew)
  if load_worker(id) then return bool(true) end
  call('HSET', worker_key(id), 'i', pack({name, slots, prefetch, queues, tags, only_tagged}),
       'd', pack_flat(WORKER_FORMAT, 0, 0, 0, 0, 0) .. EAR, 'v', view)
  call('HSET', P .. 'crew', id, crew)
  workers[id] = nil
  look_at(id)
  join_or_part(hear(id), 1)
  return bool(true)
end

local function held_by(worker)
  local tokens = tokens_of(worker)
  return '\130\166tokens' .. array(#tokens) .. (#tokens > 0 and pack(unpack(tokens)) or '') .. '\165known\195'
end

-- What was on its way to it is lost: it hears what it holds, hands back what it does not know, and is sent functions anew.
operations.y = function(id)
  local worker = hear(id)
  if not worker then return bool(false) end
  call('UNLINK', inbox_key(worker), worker.key .. ':f')
  worker.ear, worker.sent, worker.is_changed = EAR, '', true
  return held_by(worker)
end

local function start(worker, token, item)
  local claim = claim_of(worker, token)
  local run = claim and load_run(claim.run)
  if not run or item < claim.start or item >= claim.stop then return end
  local found = segments(run, item, item + 1)[1]
  if found and found[3][STATE] == RECEIVED and not is_finished(run) then
    apply(run, {trigger = 'start', token = token}, item, item + 1)
    mark_dirty(run)
  end
end

operations.h = function(id, running)
  local worker = hear(id)
  if not worker then return bool(false) end
  for _, pair in ipairs(running) do start(worker, pair[1], pair[2]) end
  tell_worker(worker, '\146\164Held' .. held_by(worker)) -- with the deliveries, because their order matters
  return bool(true)
end

operations.s = function(id, token, item)
  local worker = hear(id)
  if worker then start(worker, token, item) end
  return bool(true)
end

local function take_outcome(run, token, outcome, name)
  local kind, first = outcome[1], outcome[2]
  local digest = run.spec.digest
  if kind == 'Succeeded' and first < outcome[3] and is_time(outcome[5]) and is_time(outcome[6]) then
    local stop = outcome[3]
    learn(digest, stop - first, outcome[5])
    apply(run, {trigger = 'succeed', token = token}, first, stop,
          {payload = outcome[4], first = first, worker = name, wall_s = outcome[5], cpu_s = outcome[6],
           peak_bytes = size_of(outcome[7]), count = stop - first})
    return stop - first
  elseif kind == 'Failed' and is_time(outcome[5]) and is_time(outcome[6]) and is_time(outcome[7] or 0) then
    learn(digest, 1, outcome[5])
    apply(run, {trigger = 'fail', token = token, retryable = outcome[4], retry_after_s = outcome[7],
                max_retries = outcome[8]}, first, first + 1,
          {payload = outcome[3], first = first, worker = name, wall_s = outcome[5], cpu_s = outcome[6],
           peak_bytes = size_of(outcome[9])})
    return 1
  elseif kind == 'Killed' then
    apply(run, {trigger = 'kill', token = token}, first, first + 1, {reason = outcome[3], worker = name, peak_bytes = size_of(outcome[4])})
  elseif kind == 'Stopped' and first < outcome[3] then
    apply(run, {trigger = 'stopped', token = token}, first, outcome[3],
          {reason = outcome[4], worker = name, peak_bytes = size_of(outcome[5]), count = outcome[3] - first})
  elseif kind == 'Released' and first < outcome[3] then
    apply(run, {trigger = 'release', token = token}, first, outcome[3])
  else
    refused_events = refused_events + 1
  end
  return 0
end

-- Safe to repeat. A success is taken from any claim that was ever given, a failure only from the one that holds the item.
operations.c = function(id, token, run_id, outcomes, final)
  local worker = hear(id, token)
  if token <= 0 or token > G.token then return bool(false) end
  local claim = worker and claim_of(worker, token)
  if is_lone and claim and final and #outcomes == 1 and end_lone(worker, token, claim, outcomes[1]) then return bool(true) end
  local run = load_run(claim and claim.run or run_id)
  if run then
    for _, outcome in ipairs(outcomes) do
      local done = take_outcome(run, claim and token or 0, outcome, worker and worker.name or '')
      if worker and done > 0 then
        worker.done = worker.done + done
        worker.is_changed = true
      end
    end
  end
  if final and claim then
    end_claim(worker, token, claim)
    if run and is_with_workers(run) then apply(run, {trigger = 'release', token = token}, claim.start, claim.stop) end
  end
  if run then changed(run) end
  return bool(true)
end

-- The reports of a claim are numbered, so that one that is repeated after a break is taken once.
operations.e = function(id, token, number, events)
  local worker = hear(id, token)
  local claim = worker and claim_of(worker, token)
  local run = claim and load_run(claim.run)
  if not run or number <= claim.reports then return bool(false) end
  claim.reports = number
  write_claim(worker, token, claim)
  for _, event in ipairs(events) do
    local item, is_display, body = event[1], event[2], event[3]
    if item >= claim.start and item < claim.stop then
      keep_event(run, item, is_display and 'd' or 't', body, worker.name)
    end
  end
  save_windows(run)
  account(run)
  run.is_touched = true
  return bool(true)
end

operations.z = function(id, slots, prefetch, view, crew)
  local worker = hear(id)
  if not worker then return bool(false) end
  join_or_part(worker, -1)
  worker.slots, worker.prefetch = max(slots, 0), max(prefetch, 0)
  join_or_part(worker, 1)
  call('HSET', worker.key, 'v', view, 'i', pack({
    worker.name, worker.slots, worker.prefetch, worker.queues, worker.tags, worker.only_tagged}))
  call('HSET', P .. 'crew', id, crew)
  return bool(true)
end

operations.b = function(client, answer)
  if ear_of(client) then tell_client(client, 'a' .. answer) end
  return bool(true)
end

local MAX_REMARKS = 8
operations.k = function(id, text)
  local run = load_run(id)
  if not run then return bool(false) end
  local remarks = run.d.remarks or {}
  if contains(remarks, text) or #remarks >= MAX_REMARKS then return bool(false) end
  remarks[#remarks + 1] = text
  run.d.remarks = remarks
  mark_dirty(run)
  return bool(true)
end

operations.l = function(id)
  drop_worker(id, '', false)
  return bool(true)
end
