# How each image is built. Whoever has docker and buildx needs nothing else, in this folder:
#   docker buildx bake                                       the images of the default release
#   VERSION=22.05.8 docker buildx bake slurm-single-node     one image of another release
#   docker buildx bake --print all                           what would be built
# `invoke build` adds what depends on the machine: the base, the revision, the host's CA bundle.
# VERSION's default, SUPPORT_END and PACKAGES_IN come from docker-bake.json, which is generated from releases.yaml.

variable "REPOSITORY" { default = "slurm-testbed" }
# Where Slurm comes from: "compiled" from source, or "packaged", from the distribution's packages in the suite that
# releases.yaml names, for a release whose source cannot be had: SLURM=packaged VERSION=26.05.5 docker buildx bake
variable "SLURM" { default = "compiled" }
variable "SUITE" { default = SLURM == "packaged" ? lookup(PACKAGES_IN, minor(VERSION), "trixie") : "trixie" }
variable "BASE" { default = "debian:${SUITE}-slim" }
# Images without a Slurm stand on one suite, whatever a release's packages stand on.
variable "APPS_SUITE" { default = "trixie" }
variable "APPS_BASE" { default = "debian:${APPS_SUITE}-slim" }
# What viz-app can run: names of images/viz-app/rootfs/etc/viz-app/apps. VIZ_APPS="gedit paraview" docker buildx bake viz-app
variable "VIZ_APPS" { default = "gedit rasmol xterm" }
# Where the SIF of viz-app goes.
variable "SIF_FOLDER" { default = "." }
# The commit that last changed this folder.
variable "REVISION" { default = "unknown" }
# Where to find the source code: whoever publishes the images says where theirs is.
variable "SOURCE_URL" { default = "https://github.com/SchedMD/slurm" }
# A source of one's own, by name; else the release's own, checked against the digests of releases.yaml.
variable "SOURCE" { default = SLURM == "packaged" ? "packages of Debian ${SUITE}" : "releases.yaml" }

function "minor" {
  params = [version]
  result = join(".", slice(split(".", version), 0, 2))
}

function "tags" {
  params = [image]
  result = ["${REPOSITORY}/${image}:${VERSION}", "${REPOSITORY}/${image}:${minor(VERSION)}"]
}

function "labels" {
  params = [title, description, licenses]
  result = {
    "org.opencontainers.image.title"       = title
    "org.opencontainers.image.description" = description
    "org.opencontainers.image.revision"    = REVISION
    "org.opencontainers.image.source"      = SOURCE_URL
    "org.opencontainers.image.licenses"    = licenses
    "org.opencontainers.image.base.name"   = BASE
    "org.slurm-testbed.interface"          = "1"
  }
}

# What an image with a Slurm in it says of that.
function "release_labels" {
  params = []
  result = {
    "org.opencontainers.image.version" = VERSION
    "org.slurm-testbed.release"        = VERSION
    "org.slurm-testbed.support-end"    = lookup(SUPPORT_END, minor(VERSION), "unknown")
    "org.slurm-testbed.source"         = SOURCE
  }
}

# Packages that every image has, and those of MariaDB; CONTRIBUTING.md has the table. SPDX expressions.
variable "BASE_LICENSES" { default = "Apache-2.0 AND GPL-3.0-or-later AND LGPL-3.0-or-later AND LGPL-2.1-or-later AND ISC" }
variable "SLURM_LICENSES" { default = "${BASE_LICENSES} AND GPL-2.0-or-later" }

# The environment of JupyterLab and JupyterHub with Node.js, and what they bring along.
variable "JUPYTER_LICENSES" { default = "${SLURM_LICENSES} AND BSD-3-Clause AND BSD-2-Clause AND MIT AND MPL-2.0 AND PSF-2.0 AND HPND" }

# The environment of job observability, and PostgreSQL's and Prometheus's packages.
variable "OBSERVABILITY_LICENSES" { default = "${SLURM_LICENSES} AND BSD-3-Clause AND MIT AND MPL-2.0 AND PSF-2.0" }

# The environment of application sessions, and noVNC.
variable "APP_SESSIONS_LICENSES" { default = "${SLURM_LICENSES} AND BSD-3-Clause AND BSD-2-Clause AND MIT AND MPL-2.0 AND PSF-2.0" }

# Applications of a desktop: GTK, and what openbox and TigerVNC are under.
variable "VIZ_LICENSES" { default = "${BASE_LICENSES} AND GPL-2.0-or-later AND MPL-2.0 AND MIT AND PSF-2.0 AND BSD-3-Clause" }

group "default" { targets = ["slurm-client", "slurm-single-node", "slurm-jupyter", "viz-app"] }
group "all" { targets = ["base", "slurm-source", "slurm-tree", "slurm-client", "slurm-single-node", "slurm-dev", "slurm-jupyter", "slurm-jupyter-notebook", "jupyterhub", "observability", "postgresql", "prometheus", "viz-app", "viz-app-xfce", "slurm-viz", "app-sessions"] }

target "_slurm" {
  context = "slurm"
  args    = { BASE = BASE, SLURM = SLURM, VERSION = VERSION }
}

# Only whether the source can be had: no image.
target "source" {
  inherits = ["_slurm"]
  target   = "source"
  output   = ["type=cacheonly"]
}

# No release is in it, and all share it: its tag is its Debian.
target "base" {
  inherits = ["_slurm"]
  target   = "base"
  tags     = ["${REPOSITORY}/base:${SUITE}"]
  labels = labels("base", "Debian with what Slurm needs at run time, without Slurm", BASE_LICENSES)
}

# No program is in it: the source that was compiled, for those who pass the images on.
target "slurm-source" {
  inherits = ["_slurm"]
  target   = "slurm-source"
  tags     = tags("slurm-source")
  labels = merge(release_labels(), labels("slurm-source", "The source of Slurm as it was compiled, with the scripts that did it", "GPL-2.0-or-later AND Apache-2.0"))
}

target "slurm-tree" {
  inherits = ["_slurm"]
  target   = "slurm-tree"
  tags     = tags("slurm-tree")
  labels = merge(release_labels(), labels("slurm-tree", "The install tree of Slurm, and nothing else: copy it onto a base", "GPL-2.0-or-later"))
}

target "slurm-client" {
  inherits = ["_slurm"]
  target   = "slurm-client"
  tags     = tags("slurm-client")
  labels = merge(release_labels(), labels("slurm-client", "Slurm's commands with munge, to speak to a cluster", SLURM_LICENSES))
}

target "slurm-single-node" {
  inherits = ["_slurm"]
  target   = "slurm-single-node"
  tags     = tags("slurm-single-node")
  labels = merge(release_labels(), labels("slurm-single-node", "A whole Slurm cluster: munge, slurmctld, slurmd, slurmdbd on MariaDB, slurmrestd", "${SLURM_LICENSES} AND GPL-2.0-only"))
}

target "slurm-dev" {
  inherits = ["_slurm"]
  target   = "slurm-dev"
  tags     = tags("slurm-dev")
  labels = merge(release_labels(), labels("slurm-dev", "Slurm with headers, libslurm and compilers, to build SPANK plugins and PySlurm", SLURM_LICENSES))
}

# Debian's Python, which environments stand on, and where they are made.
target "python" {
  context  = "python"
  contexts = { base = "target:base" }
  target   = "python"
  output   = ["type=cacheonly"]
}

target "python-build" {
  inherits = ["python"]
  target   = "python-build"
}

# What the images with an environment of Python share of those above.
target "_environment" {
  contexts = {
    python       = "target:python"
    python-build = "target:python-build"
    slurm-tree   = "target:slurm-tree"
    slurm        = "slurm"
  }
}

target "_jupyter" {
  inherits = ["_environment"]
  context  = "jupyter"
}

target "slurm-jupyter" {
  inherits = ["_jupyter"]
  target   = "slurm-jupyter"
  tags     = tags("slurm-jupyter")
  labels = merge(release_labels(), labels("slurm-jupyter", "JupyterLab with jupyterlab-slurm on a client of a cluster, or on one of its nodes", JUPYTER_LICENSES))
}

target "slurm-jupyter-notebook" {
  inherits = ["_jupyter"]
  target   = "slurm-jupyter-notebook"
  tags     = tags("slurm-jupyter-notebook")
  labels = merge(release_labels(), labels("slurm-jupyter-notebook", "The server of one user for KubeSpawner, a client of a cluster without root", JUPYTER_LICENSES))
}

target "jupyterhub" {
  inherits = ["_jupyter"]
  target   = "jupyterhub"
  tags     = tags("jupyterhub")
  labels = merge(release_labels(), labels("jupyterhub", "JupyterHub with batchspawner, jupyterhub-moss and configurable-http-proxy, whose servers are jobs", JUPYTER_LICENSES))
}

target "_observability" {
  inherits = ["_environment"]
  context  = "observability"
  contexts = { base = "target:base" }
  target   = "host"
}

target "observability" {
  inherits = ["_observability"]
  args     = { IMAGE = "observability" }
  tags     = tags("observability")
  labels = merge(release_labels(), labels("observability", "What jobs do and use: the service, and hosts of a cluster with its agent", OBSERVABILITY_LICENSES))
}

target "postgresql" {
  inherits = ["_observability"]
  args     = { IMAGE = "postgresql" }
  tags     = tags("postgresql")
  labels = merge(release_labels(), labels("postgresql", "PostgreSQL for the service of job observability", "${SLURM_LICENSES} AND PostgreSQL"))
}

target "prometheus" {
  inherits = ["_observability"]
  args     = { IMAGE = "prometheus" }
  tags     = tags("prometheus")
  labels = merge(release_labels(), labels("prometheus", "Prometheus for the service of job observability", SLURM_LICENSES))
}

# The base and its Python again, on the suite of images without a Slurm: with a release that is compiled they are the same.
target "apps-base" {
  inherits = ["_slurm"]
  args     = { BASE = APPS_BASE }
  target   = "base"
  output   = ["type=cacheonly"]
}

target "apps-python" {
  inherits = ["python"]
  contexts = { base = "target:apps-base" }
}

target "apptainer" {
  context  = "slurm-viz"
  contexts = { base = "target:base" }
  target   = "apptainer"
  output   = ["type=cacheonly"]
}

target "apps-apptainer" {
  inherits = ["apptainer"]
  contexts = { base = "target:apps-base" }
}

target "slurm-viz" {
  inherits = ["apptainer"]
  contexts = { slurm-tree = "target:slurm-tree", slurm = "slurm" }
  target   = "slurm-viz"
  output   = []
  tags     = tags("slurm-viz")
  labels = merge(release_labels(), labels("slurm-viz", "A node that runs applications from Apptainer's images", "${SLURM_LICENSES} AND BSD-3-Clause"))
}

# No release of Slurm is in it: as base, its tag is its Debian.
target "viz-app" {
  context  = "viz-app"
  contexts = { apps-python = "target:apps-python" }
  target   = "viz-app"
  args     = { DESKTOP = "openbox", APPS = VIZ_APPS }
  tags     = ["${REPOSITORY}/viz-app:${APPS_SUITE}"]
  labels = merge(labels("viz-app", "An application of a desktop in a browser: Xvnc, websockify, openbox", VIZ_LICENSES), { "org.opencontainers.image.base.name" = APPS_BASE })
}

target "viz-app-xfce" {
  inherits = ["viz-app"]
  args     = { DESKTOP = "xfce" }
  tags     = ["${REPOSITORY}/viz-app-xfce:${APPS_SUITE}"]
  labels = merge(labels("viz-app-xfce", "An application of a desktop in a browser: Xvnc, websockify, Xfce", VIZ_LICENSES), { "org.opencontainers.image.base.name" = APPS_BASE })
}

# An image for Apptainer of the same files, as a file: docker buildx bake viz-app-sif writes SIF_FOLDER/viz-app.sif.
target "viz-app-sif" {
  inherits = ["viz-app"]
  contexts = { apptainer = "target:apps-apptainer" }
  target   = "sif"
  tags     = []
  output   = ["type=local,dest=${SIF_FOLDER}"]
}

target "viz-app-xfce-sif" {
  inherits = ["viz-app-sif"]
  args     = { DESKTOP = "xfce", SIF = "viz-app-xfce" }
}

target "app-sessions" {
  inherits = ["_environment"]
  context  = "app-sessions"
  target   = "app-sessions"
  tags     = tags("app-sessions")
  labels = merge(release_labels(), labels("app-sessions", "Desktop applications as jobs, in the browser: the service, with noVNC", APP_SESSIONS_LICENSES))
}
