package worker

import (
	"strings"

	"github.com/miekg/pkcs11"
)

// A profile is what this program must know of a family of modules. The self-test proves that it is
// right for the module at hand.
type profile struct {
	name         string
	manufacturer string // prefix of CK_INFO.manufacturerID that the profile is for
	// kwp is the mechanism that is RFC 5649. SoftHSM means it by CKM_AES_KEY_WRAP_PAD; NSS means
	// RFC 3394 over padded data by that, and RFC 5649 by CKM_AES_KEY_WRAP_KWP.
	kwp uint
	// ecPoint is an attribute that must carry CKA_EC_POINT when an EC private key is unwrapped; 0 for none.
	ecPoint uint
	// copies is true where C_CopyObject puts a session object of any class on the token. In SoftHSM
	// that writes the object's file once and whole, where C_UnwrapKey to the token writes it thirty times.
	copies bool
	// noDates is true where a private object with CKA_START_DATE or CKA_END_DATE cannot be read back.
	noDates bool
	// noMechanisms is true where keys cannot be restricted to some mechanisms.
	noMechanisms bool
	// oneToken is the label of the token in modules that come with just one, an empty officer code and a
	// serial number of zeros, so that it is addressed by its label.
	oneToken string
}

const (
	mechKeyWrapPad  = 0x210A // CKM_AES_KEY_WRAP_PAD
	mechKeyWrapKWP  = 0x210B // CKM_AES_KEY_WRAP_KWP (PKCS#11 3.0)
	mechCBCEncrypt  = 0x1105 // CKM_AES_CBC_ENCRYPT_DATA
	mechEdwardsGen  = 0x1055 // CKM_EC_EDWARDS_KEY_PAIR_GEN
	mechEdDSA       = 0x1057 // CKM_EDDSA
	keyTypeEdwards  = 0x40   // CKK_EC_EDWARDS
	attrNSSDatabase = 0xD5A0DB00
)

// profiles is the module table. A module that no row names gets the last one.
var profiles = []profile{
	{name: "SoftHSM 2", manufacturer: "SoftHSM", kwp: mechKeyWrapPad, copies: true, noDates: true},
	{name: "NSS softoken", manufacturer: "Mozilla", kwp: mechKeyWrapKWP, ecPoint: attrNSSDatabase, noMechanisms: true, oneToken: "NSS Certificate DB"},
	{name: "PKCS#11 3.0", kwp: mechKeyWrapKWP},
}

func profileFor(info pkcs11.Info) profile {
	for _, p := range profiles {
		if strings.HasPrefix(info.ManufacturerID, p.manufacturer) {
			return p
		}
	}
	return profiles[len(profiles)-1]
}
