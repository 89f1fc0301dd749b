# Sourced by the scripts that build guests of packages: a guest is Debian 12, whatever release the machine is that builds it.
# Takes the mirror of this machine's own release.

apt_options=()

# Reads Debian 12's lists into a directory.
prepare_packages() { # DIRECTORY
  local mirror
  mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' | awk '$1 == "Debian" { print $2; exit }')
  [[ -n $mirror ]] || { echo "apt of this machine names no mirror of Debian's: run apt-get update" >&2; exit 1; }
  mkdir -p "$1"/{lists,archives}/partial
  echo "deb $mirror bookworm main" >"$1/sources.list"
  apt_options=(-qq -o APT::Sandbox::User=root -o "Dir::State::lists=$1/lists" -o "Dir::Cache=$1" -o "Dir::Etc::sourcelist=$1/sources.list"
    -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o Acquire::Languages=none -o Dir::State::status=/dev/null)
  apt-get "${apt_options[@]}" update
}

# Writes the name of the package with the kernel that a metapackage stands for.
find_kernel() { # METAPACKAGE
  apt-cache "${apt_options[@]}" depends "$1" | awk '/Depends: linux-image/ { print $2; exit }'
}

# Downloads packages into the current directory.
download_packages() { # NAME...
  apt-get "${apt_options[@]}" download "$@"
}

# Unpacks the packages of a directory into another one, where tools of later releases look for modules in usr/lib, too.
unpack_packages() { # FROM TO
  local deb
  for deb in "$1"/*.deb; do dpkg -x "$deb" "$2"; done
  mkdir -p "$2/usr/lib"
  [[ -e $2/usr/lib/modules ]] || ln -s ../../lib/modules "$2/usr/lib/modules"
}
