-- The frame of every script: carry out the operations, then their consequences, once for all of them.
local main
do -- the rest is this part's own: a chunk may have 200 local names
  local MAX_WAKES = 1000

  local function wake_what_is_due()
    if G.due == 0 or G.due > now then return end
    local members = call('ZRANGEBYSCORE', P .. 'due', '-inf', string.format('%.6f', now), 'LIMIT', 0, MAX_WAKES)
    for _, member in ipairs(members) do
      call('ZREM', P .. 'due', member)
      local run = load_run(string.sub(member, 18, 33))
      if run then
        local start, stop = string.match(string.sub(member, 34), '(%d+) (%d+)')
        local trigger = string.sub(member, 17, 17) == 'd' and 'due' or 'expire'
        apply(run, {trigger = trigger}, tonumber(start), tonumber(stop), NEVER)
        changed(run)
      end
    end
    local first = call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')[2]
    G.due = tonumber(first or 0)
  end

  local function save_all()
    drop_what_is_gone()
    for _, id in ipairs(run_order) do
      local run = runs[id]
      if run and run.is_touched then
        run.is_touched = false
        save_run(run)
      end
    end
    for _, id in ipairs(run_order) do
      local run = runs[id]
      if run and run.printed then notify_of_output(run) end
      if run and run.is_dirty then
        run.is_dirty = false
        notify(run)
      end
    end
    save_notes()
    save_ledger()
    for _, worker in pairs(workers) do
      if worker then save_worker(worker) end
    end
    save_routes()
    save_figures()
  end

  local function carry_out(operations, name, ...) return operations[name](...) end

  -- One reply per operation, and before them the seconds until something is due.
  function main(operations, keys, argv)
    begin(keys, argv)
    is_lone = #argv == 2
    local replies = {''}
    for i = 2, #argv do replies[i] = carry_out(operations, decode(argv[i])) end
    wake_what_is_due()
    assign()
    stand_in_line()
    save_all()
    if G.due ~= 0 then replies[1] = string.format('%.6f', max(G.due - now, 0)) end
    return replies
  end
end
