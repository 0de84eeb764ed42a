# The Go tool chain: vet, build and test a program, run it.
set -euo pipefail
mkdir -p /tmp/src && cd /tmp/src
printf '#!/bin/sh\n' > try && chmod +x try && ./try  # or it is for nothing
export HOME=/tmp GOFLAGS=-mod=mod GOPROXY=off CGO_ENABLED=0
cat > go.mod <<'M'
module smoke

go 1.19
M
cat > main.go <<'M'
package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Sum adds concurrently.
func Sum(n int) (total int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := 1; i <= n; i++ {
		wg.Add(1)
		go func(i int) { defer wg.Done(); mu.Lock(); total += i; mu.Unlock() }(i)
	}
	wg.Wait()
	return total
}

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go func() {
		c, err := l.Accept()
		check(err)
		fmt.Fprint(c, "hello")
		c.Close()
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	check(err)
	b := make([]byte, 5)
	_, err = c.Read(b)
	check(err)
	out, err := exec.Command("echo", "hi").Output()
	check(err)
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGUSR1)
	check(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	select {
	case <-sig:
	case <-time.After(5 * time.Second):
		panic("no signal")
	}
	fmt.Println(string(b), strings.TrimSpace(string(out)), Sum(1000))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
M
cat > main_test.go <<'M'
package main

import "testing"

func TestSum(t *testing.T) {
	if Sum(100) != 5050 {
		t.Fatal("wrong")
	}
}
M
go vet ./...
go build -o smoke .
[ "$(./smoke)" = 'hello hi 500500' ]
go test ./... > log || { cat log >&2; exit 1; }
echo smoke-ok
