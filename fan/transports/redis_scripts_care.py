"""What looking after queues has Redis do in one step, as Lua: see `redis_scripts`."""

from __future__ import annotations

from fan.transports.redis_scripts import GROUPS, LESS, Script

#: KEYS stream, later, hand, dead; ARGV group, channel of those who take, 1 where one group alone
#: reads the stream. Exists, ready, in hand, dead letters, consumers, id of the first that waits.
STATE = Script(
    LESS,
    GROUPS,
    """
local row = group_of(ARGV[1])
local kept = KEYS[4] ~= '' and redis.call('EXISTS', KEYS[4]) == 1
local exists = (redis.call('EXISTS', KEYS[1]) == 1 and (row or ARGV[3] == '1')) or kept
if not exists then return {0} end
local later, pending, last = redis.call('ZCARD', KEYS[2]), 0, '0-0'
if row then pending, last = row['pending'], row['last-delivered-id'] end
local ready
if ARGV[3] == '1' then
  ready = redis.call('XLEN', KEYS[1]) - pending
elseif not row then
  ready = 0
elseif type(row['lag']) == 'number' then
  ready = row['lag']
else
  ready = #redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 10000)
end
local first = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1)[1]
first = first and first[1] or ''
local again = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
if again and (first == '' or less(again, first)) then first = again end
local held = KEYS[3] ~= '' and redis.call('HLEN', KEYS[3]) or 0
return {
  1, ready + later, pending - later + held, kept and redis.call('XLEN', KEYS[4]) or 0,
  redis.call('PUBSUB', 'NUMSUB', ARGV[2])[2], first,
}
""",
)

#: KEYS stream, later; ARGV group, how many at most. Entries that wait, those that are due again
#: first: [id, fields, deliveries].
WAITING = Script(
    GROUPS,
    """
local out, row, most = {}, group_of(ARGV[1]), tonumber(ARGV[2])
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, most - 1)) do
  local e = redis.call('XRANGE', KEYS[1], id, id)[1]
  local p = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if e and p then out[#out + 1] = {e[1], e[2], p[4]} end
end
local last = row and row['last-delivered-id'] or '0-0'
if #out < most and redis.call('EXISTS', KEYS[1]) == 1 then
  for _, e in ipairs(redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', most - #out)) do
    out[#out + 1] = {e[1], e[2], 0}
  end
end
return out
""",
)

#: KEYS stream, later; ARGV group, 1 to delete, how many at most. Throw away what waits: how many.
PURGE = Script(
    GROUPS,
    """
local out, row, most = 0, group_of(ARGV[1]), tonumber(ARGV[3])
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, most - 1)) do
  redis.call('ZREM', KEYS[2], id)
  out = out + redis.call('XACK', KEYS[1], ARGV[1], id)
  if ARGV[2] == '1' then redis.call('XDEL', KEYS[1], id) end
end
if out == 0 and redis.call('EXISTS', KEYS[1]) == 1 then
  local last = row and row['last-delivered-id'] or '0-0'
  for _, e in ipairs(redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', most)) do
    if ARGV[2] == '1' then
      redis.call('XDEL', KEYS[1], e[1])
    else
      redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], e[1])
    end
    out = out + 1
  end
end
return out
""",
)

#: KEYS stream, later, hand, dead; ARGV group, channel of those who take, 1 where one group alone
#: reads the stream. End a queue that nobody takes from, the topic with its last group: how many do,
#: and how many messages went.
DELETE = Script(
    GROUPS,
    """
local taking = redis.call('PUBSUB', 'NUMSUB', ARGV[2])[2]
if taking > 0 then return {taking, 0} end
local row, gone = group_of(ARGV[1]), 0
if redis.call('TYPE', KEYS[4])['ok'] == 'stream' then gone = redis.call('XLEN', KEYS[4]) end
if ARGV[3] == '1' then
  if redis.call('EXISTS', KEYS[1]) == 1 then gone = gone + redis.call('XLEN', KEYS[1]) end
  redis.call('DEL', KEYS[1])
elseif row then
  if type(row['lag']) == 'number' then
    gone = gone + row['lag']
  else
    gone = gone + #redis.call('XRANGE', KEYS[1], '(' .. row['last-delivered-id'], '+')
  end
  gone = gone + row['pending']
  redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
  if #groups() == 0 then redis.call('DEL', KEYS[1]) end
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
return {0, gone}
""",
)

#: KEYS dead, stream; ARGV number, then names of the fields that a dead letter has more than the
#: message, then "", then fields to be added. Put one dead letter back: 1 where it was there.
REQUEUE = Script("""
local e = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not e then return 0 end
local less, out, i = {}, {}, 2
while ARGV[i] ~= '' do less[ARGV[i]] = true; i = i + 1 end
for n = 1, #e[2], 2 do
  if not less[e[2][n]] then out[#out + 1] = e[2][n]; out[#out + 1] = e[2][n + 1] end
end
for n = i + 1, #ARGV do out[#out + 1] = ARGV[n] end
if #out > 0 then redis.call('XADD', KEYS[2], '*', unpack(out)) end
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
""")
