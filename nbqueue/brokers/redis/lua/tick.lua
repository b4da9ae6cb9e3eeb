-- Whatever time alone brings. Every port calls it about once a second; it is atomic, so it needs no lock, and bounded.
local MAX_ENDS, MAX_CLIENTS = 200, 100

-- Grace: when nobody looked for long, or the clock went backwards, silence proves nothing: everybody has a fresh lease.
-- This covers a restart, a failover, a suspended machine and a clock that was set.
local function extend_leases_after_a_gap()
  local looked_at = tonumber(call('GET', P .. 'tick') or now)
  call('SET', P .. 'tick', string.format('%.6f', now))
  if now >= looked_at and now - looked_at <= LEASE_S / 2 then return end
  for _, name in ipairs({'workers', 'clients'}) do
    for _, id in ipairs(call('ZRANGE', P .. name, 0, -1)) do
      call('ZADD', P .. name, string.format('%.6f', now), id)
    end
  end
end

operations.t = function()
  extend_leases_after_a_gap()
  local silent = call('ZRANGEBYSCORE', P .. 'workers', '-inf', '(' .. string.format('%.6f', now - LEASE_S), 'WITHSCORES',
                      'LIMIT', 0, 16)
  for i = 1, #silent, 2 do
    local worker = load_worker(silent[i])
    if worker then
      drop_worker(silent[i], string.format('worker %s was silent for %.0f s', worker.name, now - tonumber(silent[i + 1])), true)
    else
      call('ZREM', P .. 'workers', silent[i])
    end
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'clients', '-inf', '(' .. string.format('%.6f', now - CLIENT_LEASE_S),
                           'LIMIT', 0, MAX_CLIENTS)) do
    forget_client(id)
  end
  for _, member in ipairs(call('ZRANGEBYSCORE', P .. 'ends', '-inf', '(' .. string.format('%.6f', now), 'LIMIT', 0, MAX_ENDS)) do
    local run = load_run(string.sub(member, 1, 16))
    if run then forget_run(run) else call('ZREM', P .. 'ends', member) end
  end
  return bool(true)
end
