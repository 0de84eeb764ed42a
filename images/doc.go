// Package images holds what a container is made from: references, the local
// content store, the registry on the other side, unpacked layers, and the
// signatures kept beside each image.
//
// It promises:
//
//   - An image is known by the digest of its manifest. A name is read once
//     (Resolve, Pull); everything after works from the digest.
//   - Every byte is hashed while it is written and believed only after the end
//     of the stream: blobs against their descriptor, layers also against the
//     diffID in the config. Manifests and configs, being small, are hashed
//     again on every Resolve.
//   - The store is an OCI image layout plus layers/<diffID>/fs plus
//     attachments/<digest>. Many processes may use it at once: the index
//     changes under flock, blobs and layers appear by rename, and what a killed
//     process leaves in tmp/ is never believed and is swept by the next one.
//   - A layer directory never changes once it is there. Owners on disk are those
//     of the archive (0 to 65535): they are mapped when mounted, never chowned.
//   - Hostile input is bounded before it is read (see Config) and refused as a
//     whole, never trimmed: ambiguous documents (CVE-2021-41190), names with
//     "..", absolute names, entries beneath symbolic links, devices, hard links
//     to what the layer does not hold, forged overlay attributes.
//   - A registry that is down, an image that is not there and credentials that
//     are missing are three different answers (fault.Unavailable,
//     fault.NotFound, fault.Denied), and none of them is "unsigned".
//
// It does not promise that an image is trustworthy: that is package verify's to
// say. Pull therefore stores layers without opening them; Unpack, which parses
// them, is for an image that has been verified (Import, whose archive the
// operator hands over, unpacks at once). It does not notice somebody with the
// rights of the store's owner changing a file deep inside a sealed layer
// directory (see Unpack for what the warm check does and does not see).
//
// As an ordinary user the kernel refuses chown, so unpacked files belong to
// that user whatever the archive says, file capabilities are left out, and
// opaque directories are marked user.overlay.opaque, for overlay mounts with
// "userxattr". Everything else is the same.
package images
