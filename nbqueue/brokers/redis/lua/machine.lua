-- The task lifecycle: step(record, event, rules) -> record, commands. A translation of core/machine.py, held to it by the
-- contract suite. Commands: F finish, B enqueue at the back, Q at the front, W wait, S stop the holder, R refused.
local has_run, step
do -- the rest is this part's own: a chunk may have 200 local names
  local MAX_DELIVERIES = 20
  local FINISHED = {}
  for state = SUCCESS, EXPIRED do FINISHED[state] = {state, 0, 0, 0, 0, 0, 0, 0} end

  local function is_held(record) return record[STATE] == RECEIVED or record[STATE] == STARTED end
  function has_run(record) return record[RETRIES] > 0 or record[DEATHS] > 0 end

  local function fail(record, event, rules)
    local max_retries = event.max_retries or rules.max_retries -- what the task asked for beats its options
    if not event.retryable or record[RETRIES] >= max_retries then return FINISHED[FAILURE], 'F' end
    local delay_s = min(rules.backoff_s * 2 ^ min(record[RETRIES], 60), rules.backoff_max_s)
    if rules.jitter then delay_s = delay_s * math.random() end
    if event.retry_after_s then delay_s = max(event.retry_after_s, 0) end
    return {RETRY, record[ATTEMPT], 0, record[DEATHS], record[RETRIES] + 1, 0, 0, now + delay_s}, 'W'
  end

  local function lose(record, rules)
    local deaths = record[DEATHS] + 1
    if deaths > rules.max_lost then return FINISHED[LOST], 'F' end
    local due = now + 5 * 4 ^ (deaths - 1)
    return {RETRY, record[ATTEMPT], record[DELIVERIES], deaths, record[RETRIES], 0, 0, due}, 'W'
  end

  local function from_holder(record, event, rules)
    if not is_held(record) or event.token ~= record[TOKEN] then return record, 'R' end
    local trigger = event.trigger
    if trigger == 'start' then
      if record[STATE] ~= RECEIVED or record[REVOKING] == 1 then return record, 'R' end
      return with(record, {[STATE] = STARTED}), ''
    end
    if record[REVOKING] == 1 then return FINISHED[REVOKED], 'F' end
    if trigger == 'fail' then return fail(record, event, rules) end
    if trigger == 'kill' or trigger == 'blame' then return lose(record, rules) end
    if trigger == 'release' then
      local attempt = record[STATE] == STARTED and record[ATTEMPT] or record[ATTEMPT] - 1 -- nobody has run it
      return with(record, {[STATE] = PENDING, [TOKEN] = 0, [ATTEMPT] = attempt, [DELIVERIES] = record[DELIVERIES] - 1}), 'Q'
    end
    if trigger == 'reap' then return with(record, {[STATE] = PENDING, [TOKEN] = 0}), 'Q' end
    return record, 'R' -- stopped, although nobody asked for it
  end

  function step(record, event, rules)
    local state, trigger = record[STATE], event.trigger
    if state >= SUCCESS then return record, 'R' end
    if trigger == 'succeed' then
      local is_current = is_held(record) and event.token == record[TOKEN]
      if rules.strict_fence and not is_current then return record, 'R' end
      return FINISHED[SUCCESS], (is_held(record) and not is_current) and 'FS' or 'F'
    elseif trigger == 'revoke' then
      if not is_held(record) then return FINISHED[REVOKED], 'F' end
      return with(record, {[REVOKING] = 1}), 'S'
    elseif trigger == 'claim' then
      if state ~= PENDING then return record, 'R' end
      if record[DELIVERIES] >= MAX_DELIVERIES then return FINISHED[LOST], 'F' end
      return {RECEIVED, record[ATTEMPT] + 1, record[DELIVERIES] + 1, record[DEATHS], record[RETRIES], event.token, 0, 0}, ''
    elseif trigger == 'due' then
      if (state ~= SCHEDULED and state ~= RETRY) or now < record[DUE] - 1e-5 then return record, 'R' end
      return with(record, {[STATE] = PENDING, [DUE] = 0}), 'B'
    elseif trigger == 'expire' then
      if has_run(record) or (state ~= SCHEDULED and state ~= PENDING) then return record, 'R' end
      return FINISHED[EXPIRED], 'F'
    end
    return from_holder(record, event, rules)
  end
end
