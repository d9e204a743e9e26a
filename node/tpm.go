package node

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// A tpmBlob is a sealed data object of a TPM 2.0 (TPM 2.0 Library, part 1, section "Sealed Data"). Its parent is
// the storage key that the TPM derives from its owner seed: so no other TPM loads it, nor this one after
// its owner has cleared it.
type tpmBlob struct {
	Public  []byte `json:"public"`  // TPM2B_PUBLIC
	Private []byte `json:"private"` // TPM2B_PRIVATE
}

// tpmLimit bounds one exchange with a TPM: slow chips need seconds to make the storage key.
const tpmLimit = time.Minute

// tpmSeal seals a key to the TPM at path.
func tpmSeal(path string, key []byte) (tpmBlob, error) {
	return withTPM(path, func(t transport.TPM, parent tpm2.AuthHandle, session sessionMaker) (tpmBlob, error) {
		parent.Auth = session(tpm2.AESEncryption(128, tpm2.EncryptIn)) // the key is not to be read on the bus
		made, err := tpm2.Create{
			ParentHandle: parent,
			InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: key})}},
			InPublic: tpm2.New2B(tpm2.TPMTPublic{
				Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
				ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true, NoDA: true},
			}),
		}.Execute(t)
		if err != nil {
			return tpmBlob{}, fmt.Errorf("the TPM did not seal the node key: %w", err)
		}
		return tpmBlob{tpm2.Marshal(made.OutPublic), tpm2.Marshal(made.OutPrivate)}, nil
	})
}

// tpmOpen has the TPM at path open what it sealed.
func tpmOpen(path string, b tpmBlob) ([]byte, error) {
	return withTPM(path, func(t transport.TPM, parent tpm2.AuthHandle, session sessionMaker) ([]byte, error) {
		public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](b.Public)
		if err != nil {
			return nil, errors.New("the sealed node key is damaged; restore node.key.sealed from where it was kept")
		}
		private, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](b.Private)
		if err != nil {
			return nil, errors.New("the sealed node key is damaged; restore node.key.sealed from where it was kept")
		}
		loaded, err := tpm2.Load{ParentHandle: parent, InPublic: *public, InPrivate: *private}.Execute(t)
		if errors.Is(err, tpm2.TPMRCIntegrity) {
			return nil, errors.New("this TPM did not seal the node key: the disk is in another machine, or the TPM was cleared or replaced")
		}
		if err != nil {
			return nil, fmt.Errorf("the TPM does not take the sealed node key: %w", err)
		}
		defer flush(t, loaded.ObjectHandle)
		opened, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: session(tpm2.AESEncryption(128, tpm2.EncryptOut))}}.Execute(t)
		if err != nil {
			return nil, fmt.Errorf("the TPM does not open the node key: %w", err)
		}
		return opened.OutData.Buffer, nil
	})
}

// A sessionMaker makes an authorization session whose parameters are encrypted, salted with the storage key.
type sessionMaker func(encryption tpm2.AuthOption) tpm2.Session

// withTPM runs f with the storage key of a TPM (TCG template for ECC P-256), in bounded time.
func withTPM[T any](path string, f func(transport.TPM, tpm2.AuthHandle, sessionMaker) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := onTPM(path, f)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-time.After(tpmLimit):
		var none T
		return none, fmt.Errorf("the TPM at %s did not answer within %v", path, tpmLimit)
	}
}

func onTPM[T any](path string, f func(transport.TPM, tpm2.AuthHandle, sessionMaker) (T, error)) (T, error) {
	var none T
	t, err := openTPM(path)
	if err != nil {
		return none, err
	}
	defer t.Close()
	srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
	if err != nil {
		return none, fmt.Errorf("the TPM at %s does not make its storage key: %w", path, err)
	}
	defer flush(t, srk.ObjectHandle)
	public, err := srk.OutPublic.Contents()
	if err != nil {
		return none, fmt.Errorf("the storage key of the TPM at %s: %w", path, err)
	}
	session := func(encryption tpm2.AuthOption) tpm2.Session {
		return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, encryption, tpm2.Salted(srk.ObjectHandle, *public))
	}
	return f(t, tpm2.AuthHandle{Handle: srk.ObjectHandle, Name: srk.Name, Auth: tpm2.PasswordAuth(nil)}, session)
}

func openTPM(path string) (transport.TPMCloser, error) {
	if path == "" {
		return nil, errors.New("the configuration names no TPM ([seal] tpm, usually /dev/tpmrm0)")
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("TPM: %w", err)
	}
	open := linuxtpm.Open
	if info.Mode()&os.ModeSocket != 0 {
		open = linuxudstpm.Open
	}
	t, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("the TPM at %s cannot be used: %w", path, err)
	}
	return t, nil
}

func flush(t transport.TPM, h tpm2.TPMHandle) { tpm2.FlushContext{FlushHandle: h}.Execute(t) }
