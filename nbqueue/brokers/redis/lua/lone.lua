-- A task that is alone in its call, as that of a client is who waits for it before he submits the next. What the other parts
-- decide for any number of runs, items and states comes out the same here in half as many steps; whatever is not plain is left
-- to them, by returning nothing before anything was changed.
local is_lone -- whether the call has no other operation

local begin_lone, end_lone
do -- the rest is this part's own: a chunk may have 200 local names
  -- A new run that is closed and has one item, which may start now, and a supervisor that has its function and a free slot, for
  -- which therefore nobody waits.
  function begin_lone(client, id, asked, blocks, closed, family)
    local block, spec = blocks[1], spec_of(asked)
    if not closed or family or #blocks ~= 1 or block[1] ~= 0 or block[2] ~= 1 then return nil end
    if spec.countdown_s > 0 or spec.expires_s then return nil end
    local payload, worker, habits = block[3], pick_worker(spec.route), habits_of(spec.digest)
    if not worker or worker.held >= worker.slots or worker.sent ~= spec.digest then return nil end

    local token = G.token + 1
    G.token, G.items, G.bytes = token, G.items + 1, G.bytes + #payload
    habits.uses, habits.is_changed = habits.uses + 1, true
    expect_end(id, now + spec.result_expires_s)
    add_claim(worker, token, {run = id, start = 0, stop = 1, attempt = 1, since = now, seconds = habits.seconds, reports = 0})
    tell_worker(worker, delivery_of(spec, token, id, 0, 1, 1, '\192', '\145\147\0\1' .. bin(payload), 0))
    local figures = pack_flat(SINGLE_FORMAT, 0, 0, 0, 0, 0, RECEIVED, 1, 1, 0, 0, token, 0, 0, 0, #payload, 0, 0, now)
    call('HSET', P .. 'r:' .. id, 'm', figures .. client, 's', asked, 'b0', payload)
    return true
  end

  -- The success of such a run's item, reported by the claim that holds it, for a single follower.
  function end_lone(worker, token, claim, outcome)
    local kind, start, stop, payload, wall_s, cpu_s = unpack(outcome, 1, 6)
    if kind ~= 'Succeeded' or start ~= 0 or stop ~= 1 or not is_time(wall_s) or not is_time(cpu_s) then return nil end
    local id, key = claim.run, P .. 'r:' .. claim.run
    local found = call('HMGET', key, 'm', 's')
    local raw = found[1]
    if not raw or string.byte(raw) >= 128 or #payload >= INLINE_BYTES / 2 then return nil end
    local _, _, _, _, _, _, attempt, _, _, _, holder, _, _, work_s, payload_bytes, _, _, submitted_at, position =
      unpack_flat(SINGLE_FORMAT, raw)
    if holder ~= token or #raw ~= position + 15 then return nil end

    local spec, client = spec_of(found[2]), string.sub(raw, position)
    learn(spec.digest, 1, wall_s)
    worker.done = worker.done + 1
    end_claim(worker, token, claim)
    G.items, G.bytes = G.items - 1, G.bytes - payload_bytes + #payload
    work_s = work_s + wall_s
    local result = entry(0, 1, SUCCESS, payload, 0, '', attempt, worker.name, wall_s, cpu_s, size_of(outcome[7]))
    local figures = pack_flat(SINGLE_FORMAT, 0, 0, 1, 0, 0, SUCCESS, 0, 0, 0, 0, 0, 0, 0, work_s, 0, #payload, max(now, 1e-6),
                              submitted_at)
    call('HSET', key, 'm', figures .. client, 'e', result, 'b0', '')
    if ear_of(client) then
      client_notes[client] = {news_of(spec, id, 0, {result}, ONE_DONE, true, work_s, 1, '\144', 0)}
    end
    return true
  end
end
