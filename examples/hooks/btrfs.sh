#!/bin/sh
# btrfs.sh STORE HOOK BUNDLE ROOTFS [DIGEST DIFFID CHAINID INDEX]
# A storage driver in sh: the rootfs is a subvolume, and a read-only snapshot of it is kept in STORE after every layer, so that
# an image starts at the longest chain that is there. Changes are what `btrfs send` says, which reads no data.
# For root. Needs btrfs-progs and jq. STORE and the bundles are on one btrfs.
set -eu
store=$1 hook=$2 rootfs=$4 state=$3/hooks
shift 4
[ $# = 0 ] || chainid=$3 index=$4
document=$(cat)
ask() { printf '%s' "$document" | jq -r "$@"; }
place() { printf '%s/%s' "$store" "$(printf %s "$1" | tr : _)"; }
subvolume() { [ "$(stat -c %i "$1" 2> /dev/null)" = 256 ]; }
quietly() { "$@" > /dev/null; }
# the bundle's own snapshot of what it is based on; not read-only yet, so that koci can remove what a killed unpack left
base=$state/base

case $hook in
unpack.ociv1.layer.try-skip)
  longest=-1
  for chain in $(ask '.layers[].chainID'); do
    [ "$((longest += 1))" -ge 0 ] && subvolume "$(place "$chain")" && found=$longest snapshot=$(place "$chain")
  done
  [ "${found:--1}" -ge "$index" ] || exit 77
  if ! subvolume "$rootfs"; then
    rmdir "$rootfs" && quietly btrfs subvolume snapshot "$snapshot" "$rootfs"
  fi
  printf '{"version":1,"rootfs":true,"verified":true}' ;;
unpack.ociv1.layer.pre-extract)
  subvolume "$rootfs" && exit
  cp -a --attributes-only "$rootfs" "$state/root" && rmdir "$rootfs" && quietly btrfs subvolume create "$rootfs"
  for what in chmod chown touch; do "$what" --reference="$state/root" "$rootfs"; done && rmdir "$state/root" ;;
unpack.ociv1.layer.post-extract)
  mkdir -p "$store" && snapshot=$(place "$chainid")
  # the name comes last: a snapshot is there whole or not at all, but what is in it has to be on disk before
  btrfs filesystem sync "$rootfs" && subvolume "$snapshot" ||
    quietly btrfs subvolume snapshot -r "$rootfs" "$snapshot" ;;
unpack.ociv1.rootfs.mount) quietly btrfs subvolume snapshot "$rootfs" "$base" ;;
unpack.ociv1.rootfs.unmount) ! subvolume "$base" || quietly btrfs subvolume delete "$base" ;;
repack.ociv1.layer.delta-list)
  now=$state/now && btrfs property set -ts "$base" ro true && quietly btrfs subvolume snapshot -r "$rootfs" "$now"
  trap 'quietly btrfs subvolume delete "$now"' EXIT
  # one line per operation: its name, a path, and of a rename the new one; a path is escaped as a format of printf(1)
  btrfs send -q --no-data -p "$base" "$now" | btrfs receive --dump | awk '
    function tell(how, path) { sub(/^\.\/now\/?/, "./", path); gsub(/\001/, " ", path); gsub(/\002/, "\\\\", path)
      gsub(/%/, "%%", path); gsub(/\\e/, "\\033", path); if (path !~ /^\.\/o[0-9]+-[0-9]+-[0-9]+(\/|$)/) print how path }
    { gsub(/\\\\/, "\002"); gsub(/\\ /, "\001") } # what is left of spaces is between words
    $1 != "snapshot" { tell("-", $2) }
    $1 == "rename" { tell("=", $2); tell("+", substr($3, 6)) }' > "$state/list"
  while IFS= read -r line; do case $line in
    -*) printf "${line#-}\0" ;;
    # what was moved took along what was beneath it
    *) [ "${line%"${line#?}"}" = + ] && tree=$rootfs || tree=$base
      path=$(printf "${line#?}|") && (cd "$tree" && find "${path%|}" -print0 2> /dev/null) || : ;;
  esac; done < "$state/list" ;;
repack.ociv1.layer.refresh-bundle)
  quietly btrfs subvolume delete "$base" && quietly btrfs subvolume snapshot "$rootfs" "$base" ;;
esac
