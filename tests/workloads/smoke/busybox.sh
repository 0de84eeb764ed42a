# busybox ash and its tools, nothing else.
set -eu
cd /tmp
i=0
while [ $i -lt 200 ]; do echo "line $i"; i=$((i + 1)); done > lines
[ "$(sort -r lines | head -n 1)" = 'line 99' ]
[ "$(awk '{ n += $2 } END { print n }' lines)" = 19900 ]
tar -cf all.tar lines && gzip -9 all.tar && mkdir out && tar -xzf all.tar.gz -C out && cmp lines out/lines
[ "$(sha256sum < lines)" = "$(cat out/lines | sha256sum)" ]
mkfifo pipe && (sed 's/line/row/' lines > pipe &) && [ "$(grep -c row pipe)" = 200 ]
# A server and its client, over loopback.
mkdir www && echo hello > www/index.html
httpd -f -p 127.0.0.1:8080 -h www & server=$!
n=0; until wget -q -O got http://127.0.0.1:8080/; do n=$((n + 1)); [ $n -lt 100 ]; sleep 0.1; done
cmp got www/index.html
kill $server; wait $server || [ $? = 143 ]
ps > /dev/null; df > /dev/null; free > /dev/null; id > /dev/null; find / -xdev -maxdepth 2 > /dev/null
echo smoke-ok
