package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"
)

// child is what this binary does as another process.
func child(w []string) error {
	runtime.LockOSThread() // strace counts calls by thread
	switch w[0] {
	case "nothing": // what a process costs that does not use the log
		return nil
	case "open": // open the log and do nothing
		l, err := Open(w[1])
		if err != nil {
			return err
		}
		return l.Close()
	case "intend": // open, record n intents, say each on standard output
		return childIntend(w[1], w[2])
	case "rotate": // begin a new segment with the next record
		segmentLimit = 1
		return childIntend(w[1], "1")
	case "create":
		return Create(Config{Dir: w[1], Host: "host-1.example"})
	case "follow": // read what there is, without a lock; say how much
		f, err := NewFollower(w[1], w[2], Position{})
		if err != nil {
			return err
		}
		out, err := f.Next(100)
		fmt.Println(len(out))
		return errors.Join(err, f.Close())
	case "hold": // take the lock and keep it until killed
		f, err := os.OpenFile(w[1]+"/"+journalDir+"/"+lockFile, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		if err := flock(f, time.Now().Add(time.Second)); err != nil {
			return err
		}
		fmt.Println("held")
		time.Sleep(time.Minute)
		return f.Close()
	}
	return fmt.Errorf("child: unknown verb %q", w[0])
}

func childIntend(dir, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	l, err := Open(dir)
	if err != nil {
		return err
	}
	for i := range n {
		run := fmt.Sprintf("%d-%d", os.Getpid(), i)
		if _, err := l.Intend(context.Background(), testIntent(run)); err != nil {
			return err
		}
		// One write per line: the parent counts as acknowledged what it reads.
		if _, err := os.Stdout.WriteString(run + "\n"); err != nil {
			return err
		}
	}
	return l.Close()
}
