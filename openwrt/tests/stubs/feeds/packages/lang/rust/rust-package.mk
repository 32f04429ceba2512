# Stands in for the packages feed's rust-package.mk: instead of compiling, "cargo" leaves a file.
ifeq ($(PKG_BUILD_DIR),)
  $(error package.mk must be included before rust-package.mk)
endif
RUST_ARCH_DEPENDS:=@(aarch64||arm||x86_64)

define Build/Compile
	test -e $(PKG_BUILD_DIR)/Cargo.toml && test -e $(PKG_BUILD_DIR)/Cargo.lock && test -d $(PKG_BUILD_DIR)/src
	install -D -m0755 /dev/null $(PKG_INSTALL_DIR)/bin/$(PKG_NAME)
endef

define RustBinPackage
  $(if $(value Package/$(1)/install),,$(error Package/$(1)/install must be defined before RustBinPackage is called))
endef
