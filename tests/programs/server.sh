# redis-server under redis-benchmark, over a socket in this directory; then lazy deletion in the
# background, a snapshot by a forked child, and a shutdown.
redis-server --port 0 --unixsocket "$PWD/socket" --dir "$PWD" --save '' --io-threads 2 \
    --lazyfree-lazy-user-del yes --logfile "$PWD/log" &
server=$!
ask() { redis-cli -s socket "$@"; }
tries=0
until [ "$(ask ping 2>&1)" = PONG ]; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || { cat log; kill -9 $server; exit 1; }
    sleep 0.05
done
redis-benchmark -s socket -n 15000 -c 20 -P 8 -d 100 -q -t set,get,incr,lpush,lpop,sadd,hset,zadd,lrange_100,mset >figures
grep -c 'requests per second' figures
redis-benchmark -s socket -n 20000 -c 10 -P 16 -d 2000 -r 3000 -q -t set,lpush,hset >/dev/null
ask set counter 41
ask incr counter
ask eval 'for i = 1, 20000 do redis.call("rpush", "list", i .. string.rep("x", i % 100)) end return redis.call("llen", "list")' 0
ask lindex list 777
ask sort list alpha limit 0 2
ask del list
ask bgsave
until ask info persistence | grep -q 'rdb_bgsave_in_progress:0'; do sleep 0.05; done
ask info persistence | grep -o 'rdb_last_bgsave_status:ok'
ask flushall async
ask dbsize
ask shutdown nosave
wait $server
echo "server ended with $?"
grep -i -e 'crash' -e 'bug report' -e 'slabside:' log || echo 'nothing in the log'
