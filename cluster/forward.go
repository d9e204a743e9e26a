package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// ForwardPath is where a node takes the requests that others forward to it.
const ForwardPath = "/cluster/v1/forward"

// Handler serves what nodes ask of one another, for the peers of a Link. It is mounted at /cluster/.
func (c *Cluster) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+ForwardPath, c.serveForward)
	return mux
}

func (c *Cluster) serveForward(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForward))
	if err != nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return
	}
	var request Request
	var answer Answer
	if err := unmarshal(body, &request); err != nil {
		answer.Error = errorf(Invalid, "the forwarded request cannot be read: %v", err)
	} else {
		ctx, cancel := context.WithTimeout(r.Context(), proposeTimeout)
		defer cancel()
		answer = c.answer(ctx, PeerOf(r), request)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		c.log.Warn("a forwarded command was carried out, but the answer was not taken", "node", PeerOf(r), "error", err)
	}
}

// Forward implements Forwarder over the link.
func (l *Link) Forward(ctx context.Context, node string, r Request) (Answer, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return Answer{}, errorf(Internal, "the request cannot be encoded: %v", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+node+ForwardPath, bytes.NewReader(body))
	if err != nil {
		return Answer{}, errorf(Internal, "the request cannot be made: %v", err)
	}
	response, err := l.Client().Do(request)
	if err != nil {
		if _, dialing := errors.AsType[*DialError](err); dialing {
			return Answer{}, errorf(NoLeader, "%v", err)
		}
		return Answer{}, errorf(Uncertain, "node %q leads, but its answer did not come (%v): the change may or may not be done; look before you repeat it", node, err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return Answer{}, errorf(Uncertain, "node %q leads, but its answer broke off (%v): the change may or may not be done; look before you repeat it", node, err)
	}
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusForbidden:
		return Answer{}, errorf(Denied, "node %q does not know this node as a member of the cluster", node)
	default:
		return Answer{}, errorf(Internal, "node %q does not take forwarded commands: %s", node, response.Status)
	}
	var answer Answer
	if err := json.Unmarshal(b, &answer); err != nil {
		return Answer{}, errorf(Uncertain, "node %q leads, but its answer cannot be read: the change may or may not be done; look before you repeat it", node)
	}
	return answer, nil
}
