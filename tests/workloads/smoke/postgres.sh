# PostgreSQL: a new cluster, parallel queries, pgbench, a crash and its recovery.
set -euo pipefail
export PATH=$(echo /usr/lib/postgresql/*/bin):$PATH PGDATA=/var/lib/postgresql/data PGHOST=/tmp PGUSER=postgres
initdb --auth=trust --encoding=UTF8 > /tmp/initdb.log || { cat /tmp/initdb.log >&2; exit 1; }
start() { pg_ctl -w -t 60 -l /tmp/log -o '-c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp -c shared_buffers=32MB -c max_wal_size=64MB -c min_wal_size=32MB' start > /tmp/ctl || { cat /tmp/ctl /tmp/log >&2; exit 1; }; }
start
q() { psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
[ "$(q -c 'select sum(n) from generate_series(1, 1000) n')" = 500500 ]
q -h 127.0.0.1 -c 'create table big as select n, md5(n::text) t from generate_series(1, 60000) n; create index on big (t); analyze big' 2>&1
# Workers share memory through /dev/shm.
q -c "set min_parallel_table_scan_size = 0; set parallel_setup_cost = 0; set parallel_tuple_cost = 0; explain (analyze) select count(*) from big where t like '%a'" | grep -q 'Workers Launched: [1-9]'
pgbench -i -q -s 1 > /dev/null 2>&1
pgbench -c 4 -j 2 -t 100 2> /tmp/bench.err | grep -q 'number of transactions actually processed: 400/400'
q -c vacuum; q -c checkpoint
q -c 'copy big to stdout' | q -c 'create table copy (like big); copy copy from stdin'
pg_ctl -w -m immediate stop > /dev/null
start
[ "$(q -c 'select count(*) from big')" = 60000 ]
pg_ctl -w -m fast stop > /dev/null
# A fast stop ends whoever is connected, and autovacuum may be.
if grep -E 'FATAL|PANIC' /tmp/log | grep -v -e 'the database system is' -e 'due to administrator command'; then exit 1; fi
echo smoke-ok
