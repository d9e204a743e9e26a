package webconf

import "net/http"

func apiApprovals(c *call) error { return c.JSON(http.StatusOK, c.m.Approvals.List(c.actor)) }

func apiApproval(c *call) error {
	id, err := c.segment("id")
	if err != nil {
		return err
	}
	a, err := c.m.Approvals.Get(c.actor, id)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, a)
}

// apiWithdrawApproval takes back what this console asked for. Who approves has to log in.
func apiWithdrawApproval(c *call) error {
	id, err := c.segment("id")
	if err != nil {
		return err
	}
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	if err := c.m.Approvals.Withdraw(c.Request().Context(), c.actor, id); err != nil {
		return err
	}
	return apiApproval(c)
}

func apiPolicies(c *call) error { return c.JSON(http.StatusOK, c.m.Approvals.Policies()) }

func apiSetPolicy(c *call) error {
	act, err := c.segment("act")
	if err != nil {
		return err
	}
	var body struct {
		Needs   int     `json:"needs"`
		Role    string  `json:"role"`
		Version *uint64 `json:"version"` // of the policy that it replaces; absent: whatever there is
	}
	if err := c.decode(&body); err != nil {
		return err
	}
	if err := c.m.Approvals.SetPolicy(c.Request().Context(), c.actor, act, body.Needs, body.Role, body.Version); err != nil {
		return err
	}
	return apiPolicies(c)
}

func apiRemovePolicy(c *call) error {
	act, err := c.segment("act")
	if err != nil {
		return err
	}
	if err := c.m.Approvals.RemovePolicy(c.Request().Context(), c.actor, act, nil); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
