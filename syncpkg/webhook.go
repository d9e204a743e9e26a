package syncpkg

import "crypto"

// SignWebhook signs the body of a webhook with a node's identity key. The result is a compact JWS whose payload is
// left out (RFC 7515 appendix F): whoever verifies it puts the body, in base64url, between its two dots.
func SignWebhook(body []byte, signer crypto.Signer) (string, error) {
	protected, value, err := sign(signer, typeWebhook, body)
	if err != nil {
		return "", err
	}
	return protected + ".." + value, nil
}
