package export

// cloudEvent writes e as a CloudEvents 1.0 event in structured JSON. Names of
// extensions have lower-case letters and digits alone; what may exceed 32 bits
// is a string, as the specification's integers do not.
func cloudEvent(e *Event, whole bool) []byte {
	o := (&object{}).str("specversion", "1.0").str("id", e.ID).str("source", "ward:"+e.Origin).str("type", "dev.ward.audit."+string(e.Type)).
		str("subject", orElse(e.container(), orElse(e.Image.Digest, e.Name))).str("time", e.Time.UTC().Format(timeNano)).
		str("wardindex", decimal(e.Index)).str("wardtreesize", decimal(e.TreeSize)).str("wardleafhash", e.LeafHash).
		str("warddecision", e.Decision).str("wardrule", e.Rule).str("wardclass", e.Class)
	if whole && !e.verbatim() {
		return o.str("datacontenttype", "application/octet-stream").raw("data_base64", base64JSON(e.Leaf)).done()
	}
	o.str("datacontenttype", "application/json")
	if whole {
		return o.raw("data", e.Leaf).done()
	}
	return o.raw("data", jsonl(e, false)).done()
}
