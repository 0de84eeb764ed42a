package audit

import (
	"crypto/sha256"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// tree is the state of an RFC 6962 tree that is needed to append to it: its
// size and the roots of its complete subtrees, largest first, one for each bit
// set in size.
type tree struct {
	size     int64
	frontier []tlog.Hash
}

// add appends a leaf's hash. The frontier is not shared with the copy made by
// clone.
func (t *tree) add(h tlog.Hash) {
	for s := t.size; s&1 == 1; s >>= 1 {
		last := len(t.frontier) - 1
		h = tlog.NodeHash(t.frontier[last], h)
		t.frontier = t.frontier[:last]
	}
	t.frontier = append(t.frontier, h)
	t.size++
}

func (t tree) clone() tree {
	return tree{t.size, append(make([]tlog.Hash, 0, len(t.frontier)+2), t.frontier...)}
}

// root is the RFC 6962 tree head.
func (t tree) root() tlog.Hash {
	if len(t.frontier) == 0 {
		return sha256.Sum256(nil)
	}
	h := t.frontier[len(t.frontier)-1]
	for i := len(t.frontier) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.frontier[i], h)
	}
	return h
}

// node is the root of the complete subtree at level whose number in that level
// is n, or false if it is no entry of the frontier.
func (t tree) node(level int, n int64) (tlog.Hash, bool) {
	i, lo := 0, int64(0)
	for l := 62; l >= 0; l-- {
		if t.size>>l&1 == 0 {
			continue
		}
		if l == level && lo>>l == n {
			return t.frontier[i], true
		}
		i, lo = i+1, lo+1<<l
	}
	return tlog.Hash{}, false
}

// grown is a tree and the leaves added to it since, enough to prove each of
// those leaves: the rest of any such proof is in the base's frontier.
type grown struct {
	base   tree
	leaves []tlog.Hash
}

// ReadHashes implements tlog.HashReader.
func (g grown) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		h, err := g.node(tlog.SplitStoredHashIndex(x))
		if err != nil {
			return nil, err
		}
		out[i] = h
	}
	return out, nil
}

func (g grown) node(level int, n int64) (tlog.Hash, error) {
	if h, ok := g.base.node(level, n); ok {
		return h, nil
	}
	if level == 0 {
		i := n - g.base.size
		if i < 0 || i >= int64(len(g.leaves)) {
			return tlog.Hash{}, fmt.Errorf("leaf %d is not at hand", n)
		}
		return g.leaves[i], nil
	}
	left, err := g.node(level-1, 2*n)
	if err != nil {
		return left, err
	}
	right, err := g.node(level-1, 2*n+1)
	return tlog.NodeHash(left, right), err
}

// prove is the inclusion proof of leaf index in the grown tree.
func (g grown) prove(index int64) (tlog.RecordProof, error) {
	return tlog.ProveRecord(g.base.size+int64(len(g.leaves)), index, g)
}
