// Says what Go's archive/tar reads in each archive on stdin: the reference for koci's own reader.
// In: a 4-byte big-endian length, then the archive, repeated. Out: a line of JSON for each.
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/big"
	"os"
	"strings"
	"time"
)

type member struct {
	Name     string            `json:"name"`
	Type     string            `json:"type"`
	Size     int64             `json:"size"`
	Linkname string            `json:"linkname"`
	Mode     int64             `json:"mode"`
	UID      int               `json:"uid"`
	GID      int               `json:"gid"`
	Mtime    string            `json:"mtime"`
	Atime    string            `json:"atime"`
	Devmajor int64             `json:"devmajor"`
	Devminor int64             `json:"devminor"`
	Xattrs   map[string]string `json:"xattrs"`
	Sha256   string            `json:"sha256"`
}

type result struct {
	Members []member `json:"members"`
	Error   string   `json:"error,omitempty"`
}

func main() {
	in := bufio.NewReader(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	encoder := json.NewEncoder(out)
	for {
		var length uint32
		if err := binary.Read(in, binary.BigEndian, &length); err != nil {
			return
		}
		archive := make([]byte, length)
		if _, err := io.ReadFull(in, archive); err != nil {
			return
		}
		if err := encoder.Encode(read(archive)); err != nil {
			panic(err)
		}
	}
}

func read(archive []byte) result {
	res := result{Members: []member{}}
	// bytes.Buffer can't seek: truncated bodies are then noticed as in a stream.
	reader := tar.NewReader(bytes.NewBuffer(archive))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return res
		}
		if err != nil {
			res.Error = err.Error()
			return res
		}
		hash := sha256.New()
		// A sparse file may claim to be endless: only its size is compared then.
		if header.Size <= 1<<22 {
			if _, err := io.Copy(hash, reader); err != nil {
				res.Error = err.Error()
				return res
			}
		}
		res.Members = append(res.Members, describe(header, hash.Sum(nil)))
	}
}

func describe(header *tar.Header, sum []byte) member {
	m := member{
		Name:     base64.StdEncoding.EncodeToString([]byte(header.Name)),
		Type:     string(rune(header.Typeflag)),
		Size:     header.Size,
		Mode:     header.Mode & 07777,
		UID:      header.Uid,
		GID:      header.Gid,
		Mtime:    nanoseconds(header.ModTime),
		Xattrs:   map[string]string{},
		Sha256:   hex.EncodeToString(sum),
		Devmajor: header.Devmajor,
		Devminor: header.Devminor,
	}
	switch header.Typeflag {
	case tar.TypeLink, tar.TypeSymlink:
		m.Linkname = base64.StdEncoding.EncodeToString([]byte(header.Linkname))
		m.Size = 0
	case tar.TypeDir, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		m.Size = 0
	}
	if header.Typeflag != tar.TypeChar && header.Typeflag != tar.TypeBlock {
		m.Devmajor, m.Devminor = 0, 0
	}
	if !header.AccessTime.IsZero() {
		m.Atime = nanoseconds(header.AccessTime)
	}
	for key, value := range header.PAXRecords {
		// not CutPrefix, which Go 1.19 lacks
		if name := strings.TrimPrefix(key, "SCHILY.xattr."); name != key {
			m.Xattrs[base64.StdEncoding.EncodeToString([]byte(name))] =
				base64.StdEncoding.EncodeToString([]byte(value))
		}
	}
	return m
}

// Not UnixNano, which overflows.
func nanoseconds(t time.Time) string {
	ns := new(big.Int).Mul(big.NewInt(t.Unix()), big.NewInt(1e9))
	return ns.Add(ns, big.NewInt(int64(t.Nanosecond()))).String()
}
