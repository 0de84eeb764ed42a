package policy

// Points are all points that are decided about, sorted.
func Points() []string { return sorted(decisionFiles) }
