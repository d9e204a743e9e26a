package cluster

// The rules that other packages ask for before they make something that the State would then refuse to
// name.

// CheckLabel tells whether a slot can have this label.
func CheckLabel(label string) error { return checkLabel(label) }

// CheckNodeName tells whether a node can have this name.
func CheckNodeName(name string) error { return checkName("node name", name) }

// CheckAccountName tells whether an account can have this name.
func CheckAccountName(name string) error { return checkAccountName(name) }
