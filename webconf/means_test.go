package webconf

import (
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// meansOf is how somebody logs in who has everything, under names that want to be more.
func meansOf(v *situation, text string, own bool) meansView {
	account := cluster.Account{Name: "alice", Factors: cluster.Factors{
		TOTP:     cluster.TOTP{Sealed: []byte("x"), Created: v.Now},
		Passkeys: []cluster.Passkey{{ID: []byte{1}, Name: text, Created: v.Now}, {ID: []byte{2}, Name: text + "2", Synced: true}},
		Certificates: []cluster.ClientCertificate{{Fingerprint: strings.Repeat("0", 64), Name: text, Subject: text, NotAfter: v.Now.Add(time.Hour)},
			{Fingerprint: strings.Repeat("1", 64), Name: text + "2", NotAfter: v.Now.Add(-time.Hour)}},
	}, Locks: []cluster.Lock{{Node: text, Tries: 10, Since: v.Now, Until: v.Now.Add(time.Hour)}, {Node: "node2", Until: v.Now.Add(-time.Hour)}}}
	m := newMeansView(account, v.Now)
	m.Own, m.Base, m.Node, m.Silent = own, "/account", v.Node, []string{text, "node3"}
	m.Sessions = []sessionRow{{node.Session{ID: "a", Node: v.Node, Browser: "Firefox", Address: "192.0.2.1", Method: "password", Began: v.Now, Seen: v.Now}, true},
		{node.Session{ID: "b", Node: text, Browser: text, Address: text, Method: text}, false}}
	return m
}

// meansPages are the pages about logging in, for people who are.
func meansPages(v *situation, text string) []page {
	bare := newMeansView(cluster.Account{Name: "bob"}, v.Now)
	bare.Own, bare.Base, bare.PasskeyProblem = true, "/account", text
	account := func(f *form, m meansView) page {
		return page{Name: "account", Title: "Account", Nav: "/account", Form: f, Data: accountView{cluster.Account{Name: m.Name}, nil, "15 min", "8 h", m, newCustodianView(v.State, m.Name)}}
	}
	theirs := meansOf(v, text, false)
	theirs.Base = "/people/alice/login"
	bareTheirs := bare
	bareTheirs.Own = false
	matrix := [][]bool{{true, false}, {false, true}}
	list := []page{
		account(nil, bare), account(failed("totp", text), bare), account(failed("passkeys", text), meansOf(v, text, true)), account(failed("certificates", text), bare),
		{Name: "means", Title: "How alice logs in", Nav: "/people", Data: theirs}, {Name: "means", Title: "How bob logs in", Nav: "/people", Data: bareTheirs},
		{Name: "means", Title: "How alice logs in", Nav: "/people", Form: failed("certificates", text), Data: theirs},
		{Name: "totp", Title: "Set up", Nav: "/account", Form: newForm("first", nil), Data: enrolView{drawQR(matrix), "AAAA BBBB", "otpauth://totp/" + text}},
		{Name: "totp", Title: "Set up", Nav: "/account", Form: failed("first", text), Data: enrolView{drawQR(matrix), text, text}},
		{Name: "passkey", Title: "Add a passkey", Nav: "/account", Script: passkeyScript, Data: passkeyView{Act: "create", Options: `{"a":"b"}`, Action: "/account/passkeys/finish", Name: text, Button: "Make the passkey", Other: "/account"}},
	}
	for _, factor := range []string{cluster.FactorTOTP, cluster.FactorPasskey} {
		for _, own := range []bool{true, false} {
			list = append(list, page{Name: "factor", Title: "Remove", Nav: "/account", Form: failed("remove", text), Data: removeView{Name: "alice", Factor: factor, Base: "/account", Action: "/account/remove/x/y", Own: own, Pattern: "alice"}})
		}
	}
	return list
}
