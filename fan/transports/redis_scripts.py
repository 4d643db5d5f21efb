"""What has to happen in Redis in one step, as Lua. Redis keeps a script by its hash; `Pipe.run`
sends the text again to one that lost it.

Names of Redis's own commands, of streams and of groups are explained in `redis_keys`. A message
that is "mine" has the consumer that I am as its owner and the number of deliveries that I was
given it with: so whatever became another's meanwhile stays as it is.
"""

from __future__ import annotations

from hashlib import sha1


class Script:
    """One script and the name that Redis has for it."""

    __slots__ = ("digest", "text")

    def __init__(self, *parts: str) -> None:
        self.text = "\n".join(part.strip() for part in parts)
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


MINE = """
local function mine(id, count)
  local p = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  return p and p[2] == ARGV[2] and p[4] == tonumber(count)
end
"""

IS_UP = """
local known = {}
local function is_up(channel)
  if known[channel] == nil then
    known[channel] = redis.call('PUBSUB', 'NUMSUB', channel)[2] > 0
  end
  return known[channel]
end
"""

NOW = """
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
"""

LESS = """
local function less(a, b)
  local am, as = string.match(a, '(%d+)-(%d+)')
  local bm, bs = string.match(b, '(%d+)-(%d+)')
  am, as, bm, bs = tonumber(am), tonumber(as), tonumber(bm), tonumber(bs)
  return am < bm or (am == bm and as < bs)
end
"""

GROUPS = """
local function groups()
  local out, found = {}, redis.pcall('XINFO', 'GROUPS', KEYS[1])
  if found.err then return out end
  for _, g in ipairs(found) do
    local row = {}
    for i = 1, #g, 2 do row[g[i]] = g[i + 1] end
    out[#out + 1] = row
  end
  return out
end
local function group_of(name)
  for _, row in ipairs(groups()) do if row['name'] == name then return row end end
end
"""

#: KEYS stream, hand; ARGV group, consumer, ids. Acknowledge calls before they run: 1 for those that
#: are ours alone now. Out of memory they run without a note of who has them.
TAKE = Script("""
local out = {}
for i = 3, #ARGV do
  local done = redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  if done == 1 then
    redis.pcall('HSET', KEYS[2], ARGV[i], ARGV[2])
    redis.call('XDEL', KEYS[1], ARGV[i])
  end
  out[#out + 1] = done
end
return out
""")

#: KEYS stream; ARGV group, consumer, 1 to delete, then id and deliveries of each. Acknowledge what
#: is mine: how many were.
ACK = Script(
    MINE,
    """
local out = 0
for i = 4, #ARGV, 2 do
  if mine(ARGV[i], ARGV[i + 1]) then
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
    if ARGV[3] == '1' then redis.call('XDEL', KEYS[1], ARGV[i]) end
    out = out + 1
  end
end
return out
""",
)

#: KEYS stream, later; ARGV group, consumer, id, deliveries, delay in ms, the deliveries to be kept,
#: owner of what waits. Have what is mine delivered again after the delay.
AGAIN = Script(
    MINE,
    NOW,
    """
if not mine(ARGV[3], ARGV[4]) then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[7], 0, ARGV[3], 'RETRYCOUNT', ARGV[6], 'JUSTID')
redis.call('ZADD', KEYS[2], now() + ARGV[5], ARGV[3])
return 1
""",
)

#: KEYS stream, dead; ARGV group, consumer, id, deliveries, 1 to delete, then the fields of the dead
#: letter. Put what is mine with the dead letters.
BURY = Script(
    MINE,
    """
if not mine(ARGV[3], ARGV[4]) then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 6))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
if ARGV[5] == '1' then redis.call('XDEL', KEYS[1], ARGV[3]) end
return 1
""",
)

#: KEYS stream; ARGV group, consumer, then id and deliveries of each. Show a sign of life for what
#: is mine.
RENEW = Script(
    MINE,
    """
for i = 3, #ARGV, 2 do
  if mine(ARGV[i], ARGV[i + 1]) then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  end
end
return 1
""",
)

#: KEYS stream, later, hand; ARGV group, consumer, lease in ms, how many at most, expiry in ms (0:
#: none), prefix of channels, owner of what waits, then the consumers that were seen dead before.
#: Become the owner of what is due again and of what consumers left that are dead or show no sign of
#: life. Returns [id, fields, deliveries] of each, the consumers seen dead, and ms until the next is
#: due (-1: none).
CLAIM = Script(
    IS_UP,
    NOW,
    """
local key, group, me, most = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[4])
local out, dead, was_dead = {}, {}, {}
for i = 8, #ARGV do was_dead[ARGV[i]] = true end
local function take(id)
  local got = redis.call('XCLAIM', key, group, me, 0, id)[1]
  if got then
    local p = redis.call('XPENDING', key, group, id, id, 1)[1]
    out[#out + 1] = {id, got[2], p[4]}
  end
end
if ARGV[5] ~= '0' then redis.call('PEXPIRE', key, ARGV[5]) end
local at = now()
if most > 0 then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', at, 'LIMIT', 0, most)) do
    redis.call('ZREM', KEYS[2], id)
    take(id)
  end
end
local function left_by(name, ...)
  if #out < most then
    for _, p in ipairs(redis.call('XPENDING', key, group, ...)) do take(p[1]) end
  end
end
for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
  local row = {}
  for i = 1, #c, 2 do row[c[i]] = c[i + 1] end
  local name = row['name']
  if name ~= me and name ~= ARGV[7] then
    local up = is_up(ARGV[6] .. name)
    if not up then dead[#dead + 1] = name end
    if row['pending'] == 0 then
      if was_dead[name] and not up then redis.call('XGROUP', 'DELCONSUMER', key, group, name) end
    elseif up then
      left_by(name, 'IDLE', ARGV[3], '-', '+', most - #out, name)
    elseif was_dead[name] then
      left_by(name, '-', '+', most - #out, name)
    end
  end
end
if KEYS[3] ~= '' then
  local held = redis.call('HGETALL', KEYS[3])
  for i = 1, #held, 2 do
    local name = held[i + 1]
    if not is_up(ARGV[6] .. name) then
      if was_dead[name] then redis.call('HDEL', KEYS[3], held[i]) else dead[#dead + 1] = name end
    end
  end
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return {out, dead, first[2] and math.max(0, first[2] - at) or -1}
""",
)

#: KEYS stream; ARGV group, consumer, then ids that are known. What was given to me and never came.
MISSED = Script("""
local known, out = {}, {}
for i = 3, #ARGV do known[ARGV[i]] = true end
for _, p in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000, ARGV[2])) do
  if not known[p[1]] then
    local got = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, p[1], 'RETRYCOUNT', p[4])[1]
    if got then out[#out + 1] = {p[1], got[2], p[4]} end
  end
end
return out
""")

#: KEYS stream, hand; ARGV group, prefix of channels, channel of those who take, ids. How each call
#: stands: held, waits, alone (nobody takes it), dead (who has it is gone), gone.
WHERE = Script(
    IS_UP,
    """
local out = {}
for i = 4, #ARGV do
  local id, state = ARGV[i], 'gone'
  local owner = redis.call('HGET', KEYS[2], id)
  if owner then
    state = is_up(ARGV[2] .. owner) and 'held' or 'dead'
  else
    local p = redis.pcall('XPENDING', KEYS[1], ARGV[1], id, id, 1)
    if p.err then p = {} end
    if p[1] then
      state = (is_up(ARGV[2] .. p[1][2]) or is_up(ARGV[3])) and 'held' or 'dead'
    elseif redis.call('XRANGE', KEYS[1], id, id)[1] then
      state = is_up(ARGV[3]) and 'waits' or 'alone'
    end
  end
  out[#out + 1] = state
end
return out
""",
)

#: KEYS stream; ARGV group, id. Take back a call that nobody took: 1 where that is certain.
WITHDRAW = Script("""
local p = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)
if not p.err and p[1] then return 0 end
return redis.call('XDEL', KEYS[1], ARGV[2])
""")

#: KEYS stream, later; ARGV group, channel of those who take. Where nobody takes any more: the
#: fields of calls that wait and never ran, which are taken away, and the end of the stream once it
#: is empty.
LEAVE = Script(
    IS_UP,
    GROUPS,
    """
local out = {}
if is_up(ARGV[2]) then return out end
local row = group_of(ARGV[1])
if not row then return out end
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, 99)) do
  local p = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  local e = p and p[4] == 0 and redis.call('XRANGE', KEYS[1], id, id)[1]
  if e then
    out[#out + 1] = e[2]
    redis.call('ZREM', KEYS[2], id)
    redis.call('XACK', KEYS[1], ARGV[1], id)
    redis.call('XDEL', KEYS[1], id)
  end
end
local last = '(' .. row['last-delivered-id']
for _, e in ipairs(redis.call('XRANGE', KEYS[1], last, '+', 'COUNT', 100)) do
  out[#out + 1] = e[2]
  redis.call('XDEL', KEYS[1], e[1])
end
if redis.call('XLEN', KEYS[1]) == 0 then redis.call('DEL', KEYS[1]) end
return out
""",
)

#: KEYS stream; ARGV group, consumer. Forget a consumer that left nothing.
QUIT = Script("""
local p = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if p.err or p[1] then return 0 end
return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
""")

#: KEYS topic; ARGV the fields of an event. Add it where anybody ever subscribed: how many groups
#: get it.
PUBLISH = Script("""
local groups = redis.call('EXISTS', KEYS[1]) == 1 and redis.call('XINFO', 'GROUPS', KEYS[1]) or {}
if #groups > 0 then redis.call('XADD', KEYS[1], '*', unpack(ARGV)) end
return #groups
""")

#: KEYS topic; ARGV prefix of channels, prefix of private groups, then the groups that were seen
#: dead before. Drop what every group has acknowledged, and private groups whose consumer is dead;
#: returns those seen dead.
TRIM = Script(
    IS_UP,
    LESS,
    GROUPS,
    """
local lowest, dead, was_dead, count = nil, {}, {}, 0
for i = 3, #ARGV do was_dead[ARGV[i]] = true end
for _, row in ipairs(groups()) do
  local name, drop = row['name'], false
  if string.sub(name, 1, #ARGV[2]) == ARGV[2]
    and not is_up(ARGV[1] .. string.sub(name, #ARGV[2] + 1)) then
    dead[#dead + 1], drop = name, was_dead[name]
  end
  if drop then
    redis.call('XGROUP', 'DESTROY', KEYS[1], name)
  else
    count = count + 1
    local first = row['last-delivered-id']
    local p = redis.call('XPENDING', KEYS[1], name)
    if p[1] > 0 and less(p[2], first) then first = p[2] end
    if lowest == nil or less(first, lowest) then lowest = first end
  end
end
if count == 0 then
  redis.call('DEL', KEYS[1])
elseif lowest ~= '0-0' then
  redis.call('XTRIM', KEYS[1], 'MINID', lowest)
end
return dead
""",
)

#: KEYS topic, later; ARGV group. End a group; the topic ends with its last.
DESTROY = Script(
    GROUPS,
    """
redis.pcall('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
if #groups() == 0 then redis.call('DEL', KEYS[1]) end
return 1
""",
)

#: KEYS once; ARGV claim, answer ("" for none), ttl in ms. Turn my claim into an answer, or end it.
SETTLE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")
