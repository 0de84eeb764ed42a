package audit

// recover deals with a segment that does not end in a commit.
func (l *Log) recover(size int64) error {
	return l.damage(ClassTorn, l.end, "recovery is not there yet")
}

// poison retires the log after a failed flush.
func (l *Log) poison(err error) error {
	return err
}
