package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// archive makes a .zip for Windows and a .tar.gz for the others. All files are in
// one folder, called as the archive is.
func (o options) archive(t target, name string, files []file) error {
	folder := filepath.Base(name)
	if t.system == "windows" {
		return writeFile(name+".zip", func(w io.Writer) error { return writeZip(w, folder, files, o.date) })
	}
	return writeFile(name+".tar.gz", func(w io.Writer) error { return writeTar(w, folder, files, o.date) })
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	err = write(f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

func writeTar(w io.Writer, folder string, files []file, date time.Time) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, f := range files {
		raw, err := f.read()
		if err != nil {
			return err
		}
		// An archive that root unpacks makes root's files.
		h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(folder, f.inArchive), Mode: int64(f.mode), Size: int64(len(raw)), ModTime: date, Uname: "root", Gname: "root", Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(raw); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func writeZip(w io.Writer, folder string, files []file, date time.Time) error {
	z := zip.NewWriter(w)
	for _, f := range files {
		raw, err := f.read()
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: path.Join(folder, f.inArchive), Method: zip.Deflate, Modified: date}
		h.SetMode(f.mode)
		out, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := out.Write(raw); err != nil {
			return err
		}
	}
	return z.Close()
}

// read is what stands in an archive: pages are not gzipped twice.
func (f file) read() ([]byte, error) {
	raw, err := os.ReadFile(f.from)
	if err != nil || !strings.HasSuffix(f.from, ".gz") || strings.HasSuffix(f.inArchive, ".gz") {
		return raw, err
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// sumsName lists the checksums, for sha256sum -c.
const sumsName = "SHA256SUMS"

func checksums(dir string) error {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, e := range entries {
		sum, err := checksum(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%s  %s\n", sum, e.Name())
	}
	return os.WriteFile(filepath.Join(dir, sumsName), []byte(text.String()), 0o644)
}

// checksum is a file's SHA-256, in hex.
func checksum(name string) (string, error) {
	raw, err := os.ReadFile(name)
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), err
}
