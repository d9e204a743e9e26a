package webconf

import (
	"net/http"
	"slices"

	"github.com/keyferry/keyferry/cluster"
)

// A route is one thing that can be asked. There is no other way to make one, so each says who may.
type route struct {
	method     string
	path       string
	permission cluster.Permission // public and loggedIn are for routes that no permission is about
	handle     func(*call) error
	body       int64 // bytes that the request's body may have
}

const (
	public   cluster.Permission = "public"    // anybody; in the API also before the node is a member
	loggedIn cluster.Permission = "logged in" // whoever has a session, about that session
)

const (
	none   = 0
	small  = maxForm
	stream = maxUpload // read as it comes, never held in memory
)

const (
	get    = http.MethodGet
	head   = http.MethodHead
	post   = http.MethodPost
	put    = http.MethodPut
	remove = http.MethodDelete
)

// consoleRoutes is every page and form of WebConf.
func consoleRoutes() []route {
	return slices.Concat(loginRoutes(), slotRoutes(), keyRoutes(), peopleRoutes(), clusterRoutes())
}

// loginRoutes is how people come in, and what they keep for themselves.
func loginRoutes() []route {
	return []route{
		{get, "/static/:hash/:file", public, staticFile, none},
		{post, "/theme", public, setTheme, small},
		{get, "/setup", public, setupPage, none},
		{post, "/setup", public, setup, small},
		{get, "/login", public, loginPage, none},
		{post, "/login", public, login, small},
		{get, "/login/code", public, codePage, none},
		{post, "/login/code", public, loginCode, small},
		{get, "/login/passkey", public, passkeyLoginPage, none},
		{post, "/login/passkey", public, passkeyLogin, small},
		{post, "/login/certificate", public, certificateLogin, small},
		{post, "/logout", loggedIn, logout, small},
		{get, "/removed", loggedIn, removedPage, none},
		{get, "/account", loggedIn, accountPage, none},
		{post, "/account/password", loggedIn, changePassword, small},
		// What stays when the session is over is not for a temporary password, which two people know.
		{post, "/account/custodian", cluster.MayKeepAccount, setPassphrase, small},
		{post, "/account/totp", cluster.MayKeepAccount, beginTOTP, small},
		{post, "/account/totp/finish", cluster.MayKeepAccount, finishTOTP, small},
		{post, "/account/passkeys", cluster.MayKeepAccount, beginPasskey, small},
		{post, "/account/passkeys/finish", cluster.MayKeepAccount, finishPasskey, small},
		{post, "/account/certificates", cluster.MayKeepAccount, addOwnCertificate, small},
		{get, "/account/remove/:factor/:id", cluster.MayKeepAccount, removeOwnPage, none},
		{post, "/account/remove/:factor/:id", cluster.MayKeepAccount, removeOwnFactor, small},
		{post, "/account/sessions/end", loggedIn, endOwnSession, small},
		{post, "/account/sessions/end-all", loggedIn, endOtherSessions, small},
	}
}

// slotRoutes is the node with its HSM, its slots, and who opens them.
func slotRoutes() []route {
	return []route{
		{get, "/", cluster.MayView, statusPage, none},
		{get, "/hsm", cluster.MayView, hsmPage, none},
		{post, "/hsm/reload", cluster.MayManageSlots, reloadModule, small},
		{get, "/protection", cluster.MayView, protectionPage, none},
		{get, "/restart", cluster.MayView, restartPage, none},
		{get, "/custody", cluster.MayView, custodyPage, none},
		{post, "/protection", cluster.MayManageCodes, protect, small},
		{get, "/coverage", cluster.MayView, coveragePage, none},
		{get, "/coverage.csv", cluster.MayView, coverageCSV, none},
		{get, "/coverage/:label/:fingerprint", cluster.MayView, keyPage, none},

		{get, "/slots", cluster.MayView, slotsPage, none},
		{get, "/new-slot", cluster.MayManageSlots, newSlotPage, none}, // not below /slots/, where it could be a label
		{post, "/new-slot", cluster.MayManageSlots, newSlot, small},
		{get, "/slots/:label", cluster.MayView, slotPage, none},
		{post, "/slots/:label/activate", cluster.MayActivate, activateSlot, small},
		{post, "/slots/:label/deactivate", cluster.MayActivate, deactivateSlot, small},
		{post, "/slots/:label/code", cluster.MayManageSlots, changeCode, small},
		{post, "/slots/:label/rotate", cluster.MayTendCodes, rotateCode, small},
		{post, "/slots/:label/try", cluster.MayTendCodes, tryCode, small},
		{post, "/slots/:label/rotation", cluster.MayManageCodes, setRotation, small},
		{post, "/slots/:label/mode", cluster.MayManageCodes, setMode, small},

		{get, "/slots/:label/custody", cluster.MayView, custodiansPage, none},
		{post, "/slots/:label/custody", cluster.MayManageCodes, setCustody, small},
		{post, "/slots/:label/custody/withdraw", cluster.MayManageCodes, withdrawCustody, small},
		{post, "/slots/:label/custody/leave", cluster.MayManageCodes, leaveCustody, small},
		{post, "/slots/:label/prepare", cluster.MayActivate, prepareCode, small},

		{get, "/activate", cluster.MayView, activatePage, none},
		{post, "/activate", cluster.MayActivate, activateAll, small},
	}
}

// keyRoutes is how keys travel, and the applications that use them.
func keyRoutes() []route {
	return []route{
		{get, "/sync", cluster.MayView, syncPage, none},
		{post, "/sync/packages", cluster.MaySynchronize, makePackage, small},
		{post, "/sync/uploads", cluster.MaySynchronize, uploadPackage, stream},
		{get, "/sync/packages/:digest", cluster.MayView, packagePage, none},
		{get, "/sync/packages/:digest/file", cluster.MaySynchronize, packageFile, none},
		{head, "/sync/packages/:digest/file", cluster.MaySynchronize, packageFile, none},
		{post, "/sync/packages/:digest/import", cluster.MaySynchronize, importPackage, small},
		{get, "/sync/receipts/:package/:node", cluster.MayView, receiptPage, none},
		{get, "/sync/receipts/:package/:node/jws", cluster.MayView, receiptFile, none},

		{get, "/applications", cluster.MayView, applicationsPage, none},
		{get, "/new-application", cluster.MayManageApps, newApplicationPage, none},
		{post, "/new-application", cluster.MayManageApps, newApplication, small},
		{get, "/applications/:name", cluster.MayView, applicationPage, none},
		{post, "/applications/:name", cluster.MayManageApps, changeApplication, small},
		{post, "/applications/:name/remove", cluster.MayManageApps, removeApplication, small},
		{post, "/applications/:name/restart", cluster.MayRestartApps, restartApplication, small},
	}
}

// peopleRoutes is who may do what, and what takes several.
func peopleRoutes() []route {
	return []route{
		{get, "/approvals", cluster.MayView, approvalsPage, none},
		{get, "/approvals/:id", cluster.MayView, approvalPage, none},
		{post, "/approvals/:id/approve", cluster.MayApprove, approve, small},
		{post, "/approvals/:id/reject", cluster.MayApprove, rejectApproval, small},
		{post, "/approvals/:id/withdraw", cluster.MayWithdraw, withdrawApproval, small},
		{get, "/policies", cluster.MayView, policiesPage, none},
		{post, "/policies", cluster.MayManagePolicies, setPolicy, small},
		{post, "/policies/remove", cluster.MayManagePolicies, removePolicy, small},

		{get, "/people", cluster.MayView, peoplePage, none},
		{get, "/roles", cluster.MayView, rolesPage, none},
		{get, "/new-person", cluster.MayManageAccounts, newPersonPage, none},
		{post, "/new-person", cluster.MayManageAccounts, newPerson, small},
		{get, "/people/:name", cluster.MayView, personPage, none},
		{post, "/people/:name", cluster.MayManageAccounts, changePerson, small},
		{post, "/people/:name/disable", cluster.MayManageAccounts, disablePerson, small},
		{post, "/people/:name/enable", cluster.MayManageAccounts, enablePerson, small},
		{post, "/people/:name/password", cluster.MayManageAccounts, resetPerson, small},
		{post, "/people/:name/remove", cluster.MayManageAccounts, removePerson, small},

		{get, "/people/:name/login", cluster.MayManageAccounts, meansPage, none},
		{post, "/people/:name/login/unlock", cluster.MayManageAccounts, unlockPerson, small},
		{post, "/people/:name/login/certificates", cluster.MayManageAccounts, addTheirCertificate, small},
		{get, "/people/:name/login/remove/:factor/:id", cluster.MayManageAccounts, removeTheirPage, none},
		{post, "/people/:name/login/remove/:factor/:id", cluster.MayManageAccounts, removeTheirFactor, small},
		{post, "/people/:name/login/sessions/end", cluster.MayManageAccounts, endTheirSession, small},
		{post, "/people/:name/login/sessions/end-all", cluster.MayManageAccounts, endTheirSessions, small},
	}
}

// clusterRoutes is the nodes, their identities and trust, and what was done.
func clusterRoutes() []route {
	return []route{
		{get, "/cluster", cluster.MayView, clusterPage, none},
		{post, "/cluster/invitations", cluster.MayManageNodes, inviteNode, small},
		{post, "/cluster/invitations/withdraw", cluster.MayManageNodes, withdrawInvitation, small},
		{post, "/cluster/remove", cluster.MayManageNodes, removeNode, small},
		{get, "/cluster/settings", cluster.MayView, settingsPage, none},
		{post, "/cluster/settings", cluster.MayManageNodes, saveSettings, small},
		{post, "/cluster/settings/begin", cluster.MayManageNodes, beginSettings, small},
		{post, "/cluster/settings/take-over", cluster.MayManageNodes, takeOverSettings, small},
		{post, "/cluster/settings/extend", cluster.MayManageNodes, extendSettings, small},
		{post, "/cluster/settings/release", cluster.MayManageNodes, releaseSettings, small},
		{get, "/cluster/replace/:node", cluster.MayView, replacePage, none},
		{get, "/cluster/stolen", cluster.MayView, theftsPage, none},
		{get, "/cluster/stolen.csv", cluster.MayView, theftsCSV, none},
		{post, "/cluster/stolen", cluster.MayManageNodes, settleStolen, small},
		{get, "/cluster/stolen/:node", cluster.MayView, stolenPage, none},
		{post, "/cluster/stolen/:node", cluster.MayManageNodes, declareStolen, small},
		{get, "/cluster/nodes/:node/identity.jwk", cluster.MayView, identityKey, none},
		{get, "/identity", cluster.MayView, identityPage, none},
		{get, "/identity/owner.pem", cluster.MayView, ownerFile, none},
		{get, "/identity/nodes/:node/chain.pem", cluster.MayView, chainFile, none},
		{get, "/identity/request.csr", cluster.MayManageNodes, requestFile, none},
		{post, "/identity/renew", cluster.MayManageNodes, renewIdentity, small},
		{get, "/identity/keys", cluster.MayManageNodes, keysPage, none},
		{post, "/identity/keys/request", cluster.MayManageNodes, requestNewKey, small},
		{post, "/identity/keys/node", cluster.MayManageNodes, replaceIdentityKey, small},
		{post, "/identity/keys/owner", cluster.MayManageNodes, replaceOwner, small},
		{post, "/identity/trust", cluster.MayManageTrust, makeTrust, small},
		{get, "/identity/trust/:trusting/:trusted", cluster.MayView, trustPage, none},
		{post, "/identity/trust/:trusting/:trusted/remove", cluster.MayManageTrust, removeTrust, small},
		{get, "/audit", cluster.MayView, auditPage, none},
		{get, "/audit/:seq", cluster.MayView, auditEntryPage, none},
		{post, "/audit/export", cluster.MayExportAudit, exportAudit, small},
		{get, "/jobs", cluster.MayView, jobsPage, none},
		{get, "/jobs/:id", cluster.MayView, jobPage, none},
	}
}

// v1 is the version of the API that there is.
const v1 = "/api/v1"

// apiRoutes is the JSON API of the Unix socket.
func apiRoutes() []route {
	return slices.Concat(apiClusterRoutes(), apiSlotRoutes(), apiKeyRoutes(), apiPeopleRoutes(), apiWorkRoutes())
}

// apiClusterRoutes is the nodes, their identities and trust.
func apiClusterRoutes() []route {
	return []route{
		{get, v1 + "/status", public, apiStatus, none},
		{post, v1 + "/cluster/init", public, apiInit, small},
		{post, v1 + "/cluster/join", public, apiJoin, small},
		{post, v1 + "/identity/request", public, apiRequestIdentity, small},
		{post, v1 + "/cluster/invitations", cluster.MayManageNodes, apiInvite, small},
		{get, v1 + "/cluster/settings", cluster.MayView, apiSettings, none},
		{put, v1 + "/cluster/settings", cluster.MayManageNodes, apiSaveSettings, small},
		{post, v1 + "/cluster/settings/lease", cluster.MayManageNodes, apiTakeLease, small},
		{post, v1 + "/cluster/settings/lease/extend", cluster.MayManageNodes, apiExtendLease, small},
		{post, v1 + "/cluster/settings/lease/release", cluster.MayManageNodes, apiReleaseLease, small},
		{get, v1 + "/cluster/nodes/:node/losses", cluster.MayView, apiLosses, none},
		{get, v1 + "/cluster/nodes/:node/theft", cluster.MayView, apiTheft, none},
		{get, v1 + "/cluster/stolen", cluster.MayView, apiThefts, none},
		{post, v1 + "/cluster/stolen", cluster.MayManageNodes, apiSettleStolen, small},
		{remove, v1 + "/cluster/nodes/:node", cluster.MayManageNodes, apiRemoveNode, none},
		{get, v1 + "/identity", cluster.MayView, apiIdentity, none},
		{post, v1 + "/identity/renew", cluster.MayManageNodes, apiRenewIdentity, small},
		{post, v1 + "/identity/owner", cluster.MayManageNodes, apiReplaceOwner, small},
		{get, v1 + "/identity/owner.pem", cluster.MayView, ownerFile, none},
		{get, v1 + "/identity/nodes/:node/chain.pem", cluster.MayView, chainFile, none},
		{get, v1 + "/identity/trust/:trusting/:trusted", cluster.MayView, apiSevered, none},
		{put, v1 + "/identity/trust/:trusting/:trusted", cluster.MayManageTrust, apiMakeTrust, small},
		{remove, v1 + "/identity/trust/:trusting/:trusted", cluster.MayManageTrust, apiRemoveTrust, none},
		{post, v1 + "/first-code", public, apiFirstCode, small},
	}
}

// apiSlotRoutes is the node with its HSM, its slots, and who opens them.
func apiSlotRoutes() []route {
	return []route{
		{post, v1 + "/unseal", public, apiUnseal, small},
		{get, v1 + "/forecast", cluster.MayView, apiForecast, none},
		{get, v1 + "/custody", cluster.MayView, apiCustody, none},
		{post, v1 + "/protection", cluster.MayManageCodes, apiProtect, small},
		{get, v1 + "/hsm", cluster.MayView, apiHSM, none},
		{get, v1 + "/slots", cluster.MayView, apiSlots, none},
		{post, v1 + "/slots", cluster.MayManageSlots, apiNewSlot, small},
		{post, v1 + "/slots/:label/activate", cluster.MayActivate, apiActivate, small},
		{post, v1 + "/slots/:label/deactivate", cluster.MayActivate, apiDeactivate, small},
		{post, v1 + "/slots/:label/code", cluster.MayManageSlots, apiChangeCode, small},
		{post, v1 + "/slots/:label/rotate", cluster.MayTendCodes, apiRotateCode, small},
		{post, v1 + "/slots/:label/try", cluster.MayTendCodes, apiTryCode, small},
		{post, v1 + "/slots/:label/rotation", cluster.MayManageCodes, apiSetRotation, small},
		{post, v1 + "/slots/:label/mode", cluster.MayManageCodes, apiSetMode, small},
		{get, v1 + "/slots/:label/custody", cluster.MayView, apiCustodiansOf, none},
		{post, v1 + "/slots/:label/custody", cluster.MayManageCodes, apiSetCustody, small},
		{post, v1 + "/slots/:label/custody/withdraw", cluster.MayManageCodes, apiWithdrawCustody, small},
		{post, v1 + "/slots/:label/custody/leave", cluster.MayManageCodes, apiLeaveCustody, small},
		{post, v1 + "/slots/:label/prepare", cluster.MayActivate, apiPrepare, small},
		{post, v1 + "/activate", cluster.MayActivate, apiActivateAll, small},
		{get, v1 + "/custodians", cluster.MayView, apiCustodians, none},
		{get, v1 + "/custodians/needs", cluster.MayView, apiNeeds, none},
		{put, v1 + "/custodians/:name", cluster.MayActivate, apiSetPassphrase, small}, // of an account that proves itself
		{get, v1 + "/coverage", cluster.MayView, apiCoverage, none},
	}
}

// apiKeyRoutes is how keys travel.
func apiKeyRoutes() []route {
	return []route{
		{get, v1 + "/sync/plan", cluster.MayView, apiPlan, none},
		{get, v1 + "/sync/packages", cluster.MayView, apiPackages, none},
		{post, v1 + "/sync/packages", cluster.MaySynchronize, apiBuild, small},
		{get, v1 + "/sync/packages/:digest", cluster.MayView, apiPackage, none},
		{get, v1 + "/sync/packages/:digest/file", cluster.MaySynchronize, packageFile, none},
		{head, v1 + "/sync/packages/:digest/file", cluster.MaySynchronize, packageFile, none},
		{get, v1 + "/sync/packages/:digest/preview", cluster.MayView, apiPreview, none},
		{post, v1 + "/sync/packages/:digest/import", cluster.MaySynchronize, apiImport, small},
		{post, v1 + "/sync/uploads", cluster.MaySynchronize, apiUpload, stream},
		{post, v1 + "/sync/inspect", cluster.MayView, apiInspect, stream},
	}
}

// apiPeopleRoutes is who may do what, and what takes several.
func apiPeopleRoutes() []route {
	return []route{
		{get, v1 + "/approvals", cluster.MayView, apiApprovals, none},
		{get, v1 + "/approvals/:id", cluster.MayView, apiApproval, none},
		{post, v1 + "/approvals/:id/withdraw", cluster.MayWithdraw, apiWithdrawApproval, small},
		{get, v1 + "/policies", cluster.MayView, apiPolicies, none},
		{put, v1 + "/policies/:act", cluster.MayManagePolicies, apiSetPolicy, small},
		{remove, v1 + "/policies/:act", cluster.MayManagePolicies, apiRemovePolicy, none},

		{get, v1 + "/people", cluster.MayView, apiPeople, none},
		{post, v1 + "/people", cluster.MayManageAccounts, apiAddPerson, small},
		{put, v1 + "/people/:name", cluster.MayManageAccounts, apiChangePerson, small},
		{post, v1 + "/people/:name/password", cluster.MayManageAccounts, apiResetPerson, small},
		{remove, v1 + "/people/:name", cluster.MayManageAccounts, apiRemovePerson, none},
	}
}

// apiWorkRoutes is jobs and applications, how people log in, and what was done.
func apiWorkRoutes() []route {
	return []route{
		{get, v1 + "/jobs", cluster.MayView, apiJobs, none},
		{get, v1 + "/jobs/:id", cluster.MayView, apiJob, none},
		{get, v1 + "/applications", cluster.MayView, apiApplications, none},
		{get, v1 + "/applications/:name", cluster.MayView, apiApplication, none},
		{put, v1 + "/applications/:name", cluster.MayManageApps, apiPutApplication, small},
		{remove, v1 + "/applications/:name", cluster.MayManageApps, apiRemoveApplication, none},
		{post, v1 + "/applications/:name/restart", cluster.MayRestartApps, apiRestart, small},
		{get, v1 + "/people/:name/sessions", cluster.MayManageAccounts, apiSessions, none},
		{post, v1 + "/people/:name/sessions/end", cluster.MayManageAccounts, apiEndSessions, small},
		{post, v1 + "/people/:name/unlock", cluster.MayManageAccounts, apiUnlock, small},
		{get, v1 + "/people/:name/factors", cluster.MayManageAccounts, apiFactors, none},
		{post, v1 + "/people/:name/factors/remove", cluster.MayManageAccounts, apiRemoveFactor, small},
		{post, v1 + "/people/:name/factors/certificate", cluster.MayManageAccounts, apiAddCertificate, small},
		{get, v1 + "/audit", cluster.MayView, apiAudit, none},
		{get, v1 + "/audit/status", cluster.MayView, apiAuditStatus, none},
		{post, v1 + "/audit/export", cluster.MayExportAudit, apiExportAudit, small},
	}
}
