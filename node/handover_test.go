package node

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// codesEverywhere opens a manual slot of all nodes from one of them.
func codesEverywhere(t *testing.T, members []*Member) {
	t.Helper()
	newSlot(t, members, "hand", cluster.Manual)
	a := members[0]
	if err := members[2].Slots.ChangeCode(t.Context(), console, "hand", []byte(manualCode), []byte("battery staple")); err != nil {
		t.Fatal(err)
	}
	closeAll(t, members, "hand")
	activate := func(codes ...CodeFor) []Opening {
		t.Helper()
		job, err := a.Custody.Activate(t.Context(), console, Activation{Codes: codes})
		done, _ := finish(t, a, job, err)
		for _, c := range codes {
			if !bytes.Equal(c.Code, make([]byte, len(c.Code))) {
				t.Error("a code is left in memory")
			}
		}
		return done.Openings
	}
	// node3 has another code: what is tried there is told, and only there nothing opens.
	list := activate(CodeFor{Slot: "hand", Code: []byte(manualCode)})
	wantResults(t, list, map[string]string{"node1": Opened, "node2": Opened, "node3": NotOpened})
	for _, o := range list {
		if o.Node == "node3" && !strings.Contains(o.Detail, "wrong") {
			t.Errorf("why not: %+v", o)
		}
	}
	eventually(t, "node1 knows", func() bool { return a.State().Slots["hand"].Seats["node2"].State == cluster.Active })
	wantResults(t, activate(CodeFor{Slot: "hand", Node: "node3", Code: []byte("battery staple")}), map[string]string{"node3": Opened})
	eventually(t, "node1 knows of node3 too", func() bool { return a.State().Slots["hand"].Seats["node3"].State == cluster.Active })
	for name, q := range map[string]Activation{
		"no slot": {Codes: []CodeFor{{Slot: "nowhere", Code: []byte("code code")}}}, "no code": {Codes: []CodeFor{{Slot: "hand"}}},
		"no node": {Codes: []CodeFor{{Slot: "hand", Code: []byte("code code")}}, Nodes: []string{"node9"}}, "open": {Codes: []CodeFor{{Slot: "hand", Code: []byte("code code")}}},
	} {
		if _, err := a.Custody.Activate(t.Context(), console, q); !IsRefusal(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	eventually(t, "the act is in the trail under the node where it was done", func() bool {
		for _, e := range a.State().Audit {
			if e.Act == "slot.activate" && e.Node == "node2" && e.Actor.Name == "root@node1" && e.Result == cluster.Done {
				return true
			}
		}
		return false
	})
}

// handedOver takes handovers that are not what they should be.
func handedOver(t *testing.T, members []*Member) {
	t.Helper()
	a, b, c := members[0], members[1], members[2]
	h, err := a.sealHandover(handover{Kind: handCode, To: "node2", Slot: "hand", Actor: console, Age: time.Minute}, []byte("a secret"))
	if err != nil {
		t.Fatal(err)
	}
	try := func(m *Member, from, kind string, edit func(*handover)) error {
		changed := h
		edit(&changed)
		body, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = m.readHandover(from, kind, bytes.NewReader(body))
		return err
	}
	same := func(*handover) {}
	for name, err := range map[string]error{
		"from another node":  try(b, "node3", handCode, same),
		"from nobody":        try(b, "", handCode, same),
		"to another node":    try(c, "node1", handCode, same),
		"readdressed":        try(c, "node1", handCode, func(h *handover) { h.To = "node3" }),
		"for another thing":  try(b, "node1", handShares, same),
		"another slot":       try(b, "node1", handCode, func(h *handover) { h.Slot = "vault" }),
		"another person":     try(b, "node1", handCode, func(h *handover) { h.Actor = as("anna") }),
		"by a node":          try(b, "node1", handCode, func(h *handover) { h.Actor = a.self() }),
		"another cluster":    try(b, "node1", handCode, func(h *handover) { h.Cluster = "c9" }),
		"another nonce":      try(b, "node1", handCode, func(h *handover) { h.Nonce = make([]byte, 16) }),
		"younger":            try(b, "node1", handCode, func(h *handover) { h.Age = time.Second }),
		"from the future":    try(b, "node1", handCode, func(h *handover) { h.Age = -1 }),
		"very old":           try(b, "node1", handCode, func(h *handover) { h.Age = handoverLife + 1 }),
		"a short nonce":      try(b, "node1", handCode, func(h *handover) { h.Nonce = h.Nonce[:4] }),
		"later":              try(b, "node1", handCode, func(h *handover) { h.Expires = h.Expires.Add(time.Minute) }),
		"good for too long":  try(b, "node1", handCode, func(h *handover) { h.Expires = h.Expires.Add(time.Hour) }),
		"expired":            try(b, "node1", handCode, func(h *handover) { h.Expires = h.Expires.Add(-time.Hour) }),
		"nothing in it":      try(b, "node1", handCode, func(h *handover) { h.Sealed = nil }),
		"changed on the way": try(b, "node1", handCode, func(h *handover) { h.Sealed = append([]byte{1}, h.Sealed...) }),
	} {
		if !IsRefusal(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := try(b, "node1", handCode, same); err != nil {
		t.Errorf("the right one: %v", err)
	}
	if err := try(b, "node1", handCode, same); !IsRefusal(err) {
		t.Errorf("the right one again: %v", err)
	}
}

func FuzzHandover(f *testing.F) {
	f.Add([]byte(`{"kind":"code","cluster":"c1","from":"node1","to":"node2","slot":"a","actor":{"kind":"account","name":"anna"},"nonce":"AAAAAAAAAAAAAAAAAAAAAA==","expires":"2026-03-01T12:01:00Z","sealed":"AA=="}`))
	f.Add([]byte(`{"kind":"shares"}`))
	f.Add([]byte(`null`))
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, b []byte) {
		var h handover
		if json.Unmarshal(b, &h) != nil || h.check("c1", "node1", "node2", handCode, now) != nil {
			return
		}
		if len(h.Nonce) != 16 || h.Actor.Kind == cluster.ByNode || h.Age < 0 || h.Age > handoverLife || h.Expires.Sub(now) > handoverLife+handoverSkew {
			t.Errorf("taken: %+v", h)
		}
		one, err := h.info()
		if err != nil {
			t.Fatal(err)
		}
		h.Sealed = append(h.Sealed, 1)
		if two, err := h.info(); err != nil || !bytes.Equal(one, two) {
			t.Errorf("what it is bound to has two forms: %q, %q", one, two)
		}
	})
}
