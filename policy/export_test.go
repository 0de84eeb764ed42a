package policy

// Compiled is how many points d holds a compiled policy for.
func (d *Directory) Compiled() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.engines)
}

// Current is the compiled policy that the next question would be answered by.
func (d *Directory) Current(point string) (*Engine, error) { return d.current(point) }
