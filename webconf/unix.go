package webconf

import (
	"context"
	"net"
	"os/user"
	"strconv"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"golang.org/x/sys/unix"
)

type peerKey struct{}

// ConnContext, as the ConnContext of the http.Server on the Unix socket, remembers which user of this
// machine is at the other end (unix(7), SO_PEERCRED).
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || cerr != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, cred.Uid)
}

// fromSocket names the user at the other end of the socket. The name is looked up here and not when the
// connection is accepted, since a directory service may be slow.
func (c *call) fromSocket() error {
	uid, ok := c.Request().Context().Value(peerKey{}).(uint32)
	if !ok {
		return &cluster.Error{Code: cluster.Denied, Message: "who asks is not known: the API is served on the node's Unix socket only"}
	}
	c.actor = cluster.Actor{Kind: cluster.ByConsole, Name: userName(uid)}
	return nil
}

// userName is the name of a user, or the number where it has no name that fits into the audit trail.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	u, err := user.LookupId(id)
	if err != nil || u.Username == "" || len(u.Username) > 64 || strings.TrimSpace(u.Username) != u.Username {
		return "uid " + id
	}
	return u.Username
}
