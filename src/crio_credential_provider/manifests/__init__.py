"""What a cluster needs for this plugin, as files: derived, printed, merged into what is there.

``matchimages``     the matchImages that a registries.conf calls for
``exposures``       who else could be shown a mirror's credential by containerd's hosts
``providerconfig``  our entry of a CredentialProviderConfig, for a version of Kubernetes; an old one brought up to date
``merge``           that entry put into a CredentialProviderConfig, of which all else stays
``splice``          its text put between the lines that are there
``configfile``      such a file: read, or refused with the line at fault
``commentedyaml``   a YAML text written anew with another value and its comments
``kinds``           what can be asked for, and the outputs that each kind is made of
``layout``          objects with comments as YAML in the project's style
``objects``         what goes to the API server
``nodefiles``       what lies on a node, and the same as a MachineConfig of OpenShift or as Butane

All of it computes: texts and objects in, texts and objects out. ``commands.manifests`` reads and writes files.
"""
