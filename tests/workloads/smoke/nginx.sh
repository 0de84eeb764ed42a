# nginx: master, two workers, a file over loopback, reload, graceful end.
set -euo pipefail
mkdir -p /tmp/www && seq 100000 > /tmp/www/file
cat > /tmp/nginx.conf <<'C'
worker_processes 2;
pid /tmp/nginx.pid;
error_log stderr;
events { worker_connections 256; }
http {
  access_log off; sendfile on; gzip on; gzip_types *;
  proxy_cache_path /var/lib/nginx/cache keys_zone=z:1m;
  server { listen 80; root /tmp/www; }
  server { listen 8081; location / { proxy_pass http://127.0.0.1; proxy_cache z; aio threads; } }
}
C
nginx -e stderr -q -t -c /tmp/nginx.conf
nginx -e stderr -c /tmp/nginx.conf -g 'daemon off;' & server=$!
fetch() { curl -sS --fail --retry 50 --retry-delay 0 --retry-connrefused --max-time 20 "$@"; }
fetch http://127.0.0.1/file | cmp - /tmp/www/file
fetch --compressed http://127.0.0.1:8081/file | cmp - /tmp/www/file
for _ in {1..20}; do fetch http://127.0.0.1:8081/file -o /dev/null & pids+=($!); done; wait "${pids[@]}"
[ "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1/none)" = 404 ]
nginx -e stderr -c /tmp/nginx.conf -s reload; sleep 0.3
fetch http://127.0.0.1/file -o /dev/null
nginx -e stderr -c /tmp/nginx.conf -s quit; wait $server
echo smoke-ok
