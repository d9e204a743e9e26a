package cluster

// The rules that other packages ask for before they make something that the State would then refuse to
// name.

// CheckLabel tells whether a slot can have this label.
func CheckLabel(label string) error { return checkLabel(label) }

// CheckClusterName tells whether a cluster can have this name, which is for people.
func CheckClusterName(name string) error { return checkLine("cluster name", name, 64) }

// CheckNodeName tells whether a node can have this name.
func CheckNodeName(name string) error { return checkName("node name", name) }

// CheckFactorName tells whether a passkey or a certificate can have this name.
func CheckFactorName(name string) error { return checkLine("the name", name, maxFactorName) }

// CheckAccountName tells whether an account can have this name.
func CheckAccountName(name string) error { return checkAccountName(name) }
