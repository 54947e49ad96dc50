#!/bin/sh
# overlay.sh STORE HOOK BUNDLE ROOTFS [DIGEST DIFFID CHAINID INDEX]
# A storage driver in sh: layers are kept in STORE and mounted with overlayfs, changes are what is in the upper directory.
# For root. Needs jq, attr (getfattr, setfattr) and mount. STORE's path has no colon and no comma.
set -eu
store=$1 hook=$2 rootfs=$4 state=$3/hooks
shift 4
[ $# = 0 ] || diffid=$2 chainid=$3 index=$4
document=$(cat)
ask() { printf '%s' "$document" | jq -r "$@"; }
staging=$state/staging-${index-}
lowers() { ask "$1 | reverse | .[].dir" | awk '!seen[$0]++' | paste -sd: -; }
# under this name koci takes it down itself, should it have to remove what a killed unpack left
overlay() { mount -t overlay koci -o "index=off,redirect_dir=off,metacopy=off,$1" "$2"; }
# what a layer is kept as: by itself, or for this place in this image only
alone=$(printf 'l-%s' "${diffid-}" | tr : _) here=$(printf 'c-%s' "${chainid-}" | tr : _)
# the directory's metadata is what the image's root has in these layers
as_root() {
  chmod 755 "$2" && touch -d @0 "$2"
  of=$(ask "[$1[] | select(.report.stacking.root or (.dir | contains(\"/c-\")))] | last | .dir // empty")
  [ -z "$of" ] || { chmod --reference="$of" "$2" && chown --reference="$of" "$2" && touch --reference="$of" "$2"; }
}
root_state() { stat -c '%f %u %g %.9Y' "$state/upper"; }
needy() { ask '.layer.needsBelow // empty' | grep -q .; }

case $hook in
unpack.ociv1.layer.try-skip)
  needy && [ ! -e "$store/$here" ] && exit 77
  for key in "$here" "$alone"; do [ ! -f "$store/$key/reply" ] || exec cat "$store/$key/reply"; done
  exit 77 ;;
unpack.ociv1.layer.pre-extract)
  rm -rf "$staging" && mkdir -p "$staging/fs" && target=$staging/fs dialect=overlay-trusted
  if needy; then # it is extracted on top of what is below it
    target=$staging/merged dialect=plain && mkdir "$staging/work" "$target"
    as_root ".layers[:$index]" "$staging/fs"
    overlay "lowerdir=$(lowers ".layers[:$index]"),upperdir=$staging/fs,workdir=$staging/work" "$target"
  fi
  printf '{"version":1,"target":"%s","dialect":"%s"}' "$target" "$dialect" ;;
unpack.ociv1.layer.post-extract)
  key=$alone && if needy; then key=$here && umount "$staging/merged"; fi
  new=$store/.new-$key.$$ && rm -rf "$new" && mkdir -p "$new" && mv -T "$staging/fs" "$new/fs"
  ask -c --arg dir "$store/$key/fs" '{version: 1, dir: $dir, verified: true, report: .layer.report}' > "$new/reply"
  sync -f "$new" # complete on disk before it has its name
  mv -T "$new" "$store/$key" 2> /dev/null || rm -rf "$new" # somebody else was faster
  rm -rf "$staging" && printf '{"version":1,"dir":"%s"}' "$store/$key/fs" ;;
unpack.ociv1.rootfs.mount)
  if ! [ -d "$state/upper" ]; then
    mkdir -p "$state/upper" "$state/work" && as_root .layers "$state/upper"
    root_state > "$state/root"
  fi
  overlay "lowerdir=$(lowers .layers),upperdir=$state/upper,workdir=$state/work" "$rootfs" ;;
unpack.ociv1.rootfs.unmount)
  for dir in "$state"/staging-*/merged "$rootfs"; do ! mountpoint -q "$dir" || umount "$dir"; done ;;
repack.ociv1.layer.delta-list)
  root_state | cmp -s - "$state/root" || printf '.\0'
  cd "$state/upper" && find . -mindepth 1 -print0 && find . -type d -exec sh -c 'for dir; do
    [ "$(getfattr -h --only-values -n trusted.overlay.opaque "$dir" 2> /dev/null)" != y ] || printf "/opaque:%s\0" "$dir"
    done' sh {} + ;;
repack.ociv1.layer.refresh-bundle) # what was packed is in a layer now; what else is in the upper directory stays
  touch --reference="$state/upper" "$state/time"
  cd "$state/upper" && sed -z 's,^..,./,' "$(ask .packed.list)" | sort -zr | xargs -0r sh -c 'for path; do
    if [ -d "$path" ] && [ ! -L "$path" ]; then setfattr -x trusted.overlay.opaque "$path" 2> /dev/null || :
      [ "$path" = ./ ] || rmdir --ignore-fail-on-non-empty "$path"
    else rm -f "$path"; fi; done' sh
  touch --reference="$state/time" "$state/upper" && root_state > "$state/root" ;;
esac
