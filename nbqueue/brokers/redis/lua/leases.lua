-- The end of a supervisor: in good order, or taken for dead. What it ran is blamed then, what it only held is not.
local function drop_worker(id, reason, is_blamed)
  local worker = load_worker(id)
  if not worker then return end
  local tokens = tokens_of(worker)
  for i = #tokens, 1, -1 do
    local token = tokens[i]
    local claim = claim_of(worker, token)
    local run = load_run(claim.run)
    if run and not is_finished(run) then
      local found = segments(run, claim.start, claim.stop)
      for j = #found, 1, -1 do
        local trigger = is_blamed and found[j][3][STATE] == STARTED and 'blame' or 'reap'
        apply(run, {trigger = trigger, token = token}, found[j][1], found[j][2], {reason = reason, worker = worker.name})
      end
      changed(run)
    end
  end
  call('ZREM', P .. 'workers', id) -- from here on this incarnation is fenced
  call('HDEL', P .. 'crew', id)
  call('UNLINK', worker.key, worker.key .. ':f', inbox_key(worker))
  join_or_part(worker, -1)
  workers[id] = false
  holders = nil
end
