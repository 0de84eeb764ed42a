package sigstore

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// Rekor serves the one request of Rekor v1 that signing makes: it takes a DSSE
// envelope in and answers with the entry, its proof and its promise. It is a
// log of one entry, anew for each. (The real one needs a database and Trillian.)
func (a *Authority) Rekor() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Kind string `json:"kind"`
			Spec struct {
				ProposedContent struct {
					Envelope  string   `json:"envelope"`
					Verifiers []string `json:"verifiers"`
				} `json:"proposedContent"`
			} `json:"spec"`
		}
		var envelope struct {
			Payload    []byte `json:"payload"`
			Signatures []struct {
				Sig string `json:"sig"`
			} `json:"signatures"`
		}
		b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err == nil {
			err = json.Unmarshal(b, &in)
		}
		if err == nil {
			err = json.Unmarshal([]byte(in.Spec.ProposedContent.Envelope), &envelope)
		}
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/api/v1/log/entries" || in.Kind != "dsse" ||
			len(envelope.Signatures) != 1 || len(in.Spec.ProposedContent.Verifiers) != 1 {
			http.Error(w, "not an envelope", http.StatusBadRequest)
			return
		}
		out := signed{at: time.Now(), log: LogID(a.t, a.rekor.Public())}
		a.log(&out, map[string]any{"apiVersion": "0.0.1", "kind": "dsse", "spec": map[string]any{
			"envelopeHash": hashOf([]byte(in.Spec.ProposedContent.Envelope)), "payloadHash": hashOf(envelope.Payload),
			"signatures": []any{map[string]any{"signature": envelope.Signatures[0].Sig, "verifier": in.Spec.ProposedContent.Verifiers[0]}},
		}}, true)
		proof := out.entry["inclusionProof"].(map[string]any)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"24296fb24b8ad77a": map[string]any{
			"body": base64.StdEncoding.EncodeToString(out.body), "integratedTime": out.at.Unix(), "logID": out.log, "logIndex": 0,
			"verification": map[string]any{
				"signedEntryTimestamp": base64.StdEncoding.EncodeToString(out.promise),
				"inclusionProof": map[string]any{"logIndex": 0, "treeSize": 1, "hashes": []string{}, "rootHash": hex.EncodeToString(proof["rootHash"].([]byte)),
					"checkpoint": proof["checkpoint"].(map[string]any)["envelope"]},
			},
		}})
	})
}
