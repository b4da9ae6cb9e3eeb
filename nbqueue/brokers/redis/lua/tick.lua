-- Whatever time alone brings. Every port calls it about once a second; it is atomic, so it needs no lock, and bounded.
local MAX_ENDS, MAX_CLIENTS, MAX_WORKERS = 200, 100, 16

-- Grace: when nobody looked for long, or the clock went backwards, silence proves nothing: everybody has a fresh lease.
-- This covers a restart, a failover, a suspended machine and a clock that was set.
local function extend_leases_after_a_gap()
  local looked_at = tonumber(call('GET', P .. 'tick') or now)
  call('SET', P .. 'tick', string.format('%.6f', now))
  if now >= looked_at and now - looked_at <= LEASE_S / 2 then return end
  for _, id in ipairs(call('ZRANGE', P .. 'workers', 0, -1)) do
    hear(id)
    look_at(id)
  end
  for _, id in ipairs(call('ZRANGE', P .. 'clients', 0, -1)) do
    call('ZADD', P .. 'clients', string.format('%.6f', now), id)
  end
end

local function look_for_silence(id)
  local worker = load_worker(id)
  if not worker then
    call('ZREM', P .. 'workers', id)
  elseif worker.heard_at < now - LEASE_S then
    drop_worker(id, string.format('worker %s was silent for %.0f s', worker.name, now - worker.heard_at), true)
  else
    call('ZADD', P .. 'workers', string.format('%.6f', worker.heard_at), id)
  end
end

-- A run has ended later than it was submitted, if it has ended at all: its time may not be over yet.
local function look_for_end(id)
  local run = load_run(id)
  if not run then return forget_end(id) end
  local end_of_results = (is_finished(run) and run.d.finished_at or now) + run.spec.result_expires_s
  if is_finished(run) and end_of_results < now then forget_run(run) else expect_end(id, end_of_results) end
end

operations.t = function()
  extend_leases_after_a_gap()
  local last_heard = '(' .. string.format('%.6f', now - LEASE_S)
  local silent = call('ZRANGEBYSCORE', P .. 'workers', '-inf', last_heard, 'LIMIT', 0, MAX_WORKERS)
  for _, id in ipairs(silent) do look_for_silence(id) end
  last_heard = '(' .. string.format('%.6f', now - CLIENT_LEASE_S - HEARD_S)
  local gone = call('ZRANGEBYSCORE', P .. 'clients', '-inf', last_heard, 'LIMIT', 0, MAX_CLIENTS)
  for _, id in ipairs(gone) do forget_client(id) end
  local until_now = '(' .. string.format('%.0f', micros(now))
  local due = call('ZRANGEBYSCORE', P .. 'runs', '-inf', until_now, 'LIMIT', 0, MAX_ENDS)
  for _, id in ipairs(due) do look_for_end(id) end
  return bool(true)
end
